"""One chart: its look, and the figure as the page and the dashboard take it.

A colour is the name of a custom property of the page's stylesheet, which has it for light, dark and paper; the page's
script puts in what it stands for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup
from numpy.typing import ArrayLike, NDArray

BLUE, ORANGE, GREEN, RED, PURPLE = (f"var(--{name})" for name in ("blue", "orange", "green", "red", "purple"))
GREY, INK, LINE, CARD = (f"var(--{name})" for name in ("grey", "ink", "line", "card"))

_AXIS = {
    "automargin": True,
    "gridcolor": LINE,
    "linecolor": LINE,
    "zeroline": False,
    "title": {"standoff": 8},
}
_TEMPLATE = {
    "layout": {
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 8, "r": 12, "t": 8, "b": 8},
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
        "hovermode": "closest",
        "hoverlabel": {"bgcolor": CARD, "bordercolor": LINE, "font": {"color": INK}},
    }
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Chart:
    """A chart with its words; without a figure there is nothing to draw, and the caption says why.

    Attributes:
        name: of its element in the page.
        title: what it shows.
        caption: how to read it.
        figure: what is drawn.
        min_width: pixels; where there is less room it scrolls sideways.
    """

    name: str
    title: str
    caption: str
    figure: go.Figure | None
    min_width: int = 0

    @property
    def json(self) -> Markup:
        """The figure as JSON that can stand in a script element."""
        assert self.figure is not None
        return Markup(self.figure.to_json())


def figure(traces: Sequence[Any], *, height: int = 340, **layout: Any) -> go.Figure:
    """Return a figure in the style of the report; `layout` as plotly takes it."""
    return go.Figure(traces, {"template": _TEMPLATE, "height": height, **layout})


def joined(curves: Sequence[Mapping[int, float]], ids: Sequence[int]) -> dict[str, Any]:
    """Return curves as one line with gaps: a line each would take the page a thousand elements instead of one.

    Curves of a single point are dots, for a line of one point is not seen.

    Args:
        curves: value by epoch.
        ids: what `customdata` names each curve by.
    """
    x, y, names = [], [], []
    for curve, name in zip(curves, ids, strict=True):
        x += [*curve.keys(), 0]
        y += [*curve.values(), np.nan]
        names += [name] * (len(curve) + 1)
    mode = "lines" if any(len(curve) > 1 for curve in curves) else "markers"
    return {"x": small(x), "y": single(y), "customdata": small(names), "mode": mode}


def single(values: ArrayLike | Sequence[float | None]) -> NDArray[np.float32]:
    """Return numbers in half of the bytes, None as nan; seven digits are more than a chart shows."""
    return np.asarray(values, dtype=np.float32)


def small(numbers: ArrayLike) -> NDArray[Any]:
    """Return whole numbers, none below 0, in as few bytes as hold the largest."""
    whole = np.asarray(numbers, dtype=np.uint32)
    return whole.astype(np.min_scalar_type(whole.max(initial=0)))


def value_range(values: ArrayLike, *, maximize: bool, leave_out: float = 0.1) -> list[float] | None:
    """Return an axis range without the worst values if they would squeeze the others into half of it; else None.

    Args:
        values: of the metric; those that are not finite do not count.
        maximize: whether low values are the bad ones.
        leave_out: the share of values to leave out at most.
    """
    known = np.asarray(values, dtype=float)
    known = known[np.isfinite(known)] if maximize else -known[np.isfinite(known)]
    if len(known) < 10:
        return None
    worst, low, best = float(known.min()), float(np.quantile(known, leave_out)), float(known.max())
    if best - worst <= 2 * (best - low) or best == low:
        return None
    margin = 0.06 * (best - low)
    bounds = [low - margin, best + margin]
    return bounds if maximize else [-bounds[1], -bounds[0]]


def metric_format(metric: str) -> str:
    """Return d3's format of a metric: an accuracy as percent, a loss with four decimals."""
    return ".2%" if metric.endswith("accuracy") else ".4f"


def metric_axis(metric: str, limits: list[float] | None) -> dict[str, Any]:
    """Return the axis of a metric, from and to `limits` if there are any."""
    ticks = {"tickformat": ".4~p"} if metric.endswith("accuracy") else {}
    return {"title": {"text": metric}, "range": limits, **ticks}


def clipped(limits: list[float] | None) -> str:
    """Return what a caption says of an axis range of `value_range`."""
    return " The axis leaves out the worst values; a double click shows all." if limits else ""
