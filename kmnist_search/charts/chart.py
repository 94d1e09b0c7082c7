"""One chart: its style, and its figure for the report page and the dashboard."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup
from numpy.typing import ArrayLike, NDArray

from kmnist_search.charts.colours import CARD, INK, LINE

#: The web font of a report's page, which has the ten hiragana of KMNIST alone.
HIRAGANA_FONT = "KMNIST Hiragana"
#: Plotly draws at most so many ticks. An axis that ends earlier would get some between whole numbers.
MOST_TICKS = 10
#: An axis reaches so far on both sides of its only value.
HALF_WIDTH = 0.05

_FONT = {"family": f'"{HIRAGANA_FONT}", system-ui, sans-serif', "color": INK}
_AXIS = {
    "automargin": True,
    "gridcolor": LINE,
    "linecolor": LINE,
    "zeroline": False,
    "title": {"standoff": 8},
}
_TEMPLATE = {
    "layout": {
        "font": {**_FONT, "size": 12},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 8, "r": 12, "t": 8, "b": 8},
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
        "hovermode": "closest",
        "annotationdefaults": {"showarrow": False, "xanchor": "left", "xshift": 4, "bgcolor": CARD, "opacity": 0.9},
        "hoverlabel": {"bgcolor": CARD, "bordercolor": LINE, "align": "left", "font": _FONT},
    }
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Chart:
    """A chart with its texts; without data the figure is missing and the caption says why.

    Attributes:
        name: id of its element in the page.
        title: what it shows.
        caption: how to read it.
        figure: what is drawn.
        min_width: pixels; on a narrower page it scrolls sideways.
    """

    name: str
    title: str
    caption: str
    figure: go.Figure | None
    min_width: int = 0

    @property
    def json(self) -> Markup:
        """The figure as JSON that is safe in a script element."""
        assert self.figure is not None
        return Markup(self.figure.to_json())


def figure(traces: Sequence[Any], *, height: int = 340, **layout: Any) -> go.Figure:
    """Return a figure in the style of the report; `layout` takes plotly's arguments."""
    return go.Figure(traces, {"template": _TEMPLATE, "height": height, **layout})


def single(values: ArrayLike | Sequence[float | None]) -> NDArray[np.float32]:
    """Return numbers as 32-bit floats, None as nan; a chart needs no more than seven digits."""
    return np.asarray(values, dtype=np.float32)


def small(numbers: ArrayLike) -> NDArray[Any]:
    """Return non-negative integers in the smallest type that holds the largest."""
    whole = np.asarray(numbers, dtype=np.uint32)
    return whole.astype(np.min_scalar_type(whole.max(initial=0)))


def whole_axis(title: str, last: int, **more: Any) -> dict[str, Any]:
    """Return an axis of whole numbers from 1 to `last`, with ticks at whole numbers alone."""
    if last <= 1:
        return {"title": {"text": title}, "range": [0, 2], "tickvals": [1]}
    return {"title": {"text": title}, "dtick": 1 if last <= MOST_TICKS else None, **more}


def value_range(values: ArrayLike, *, maximize: bool, leave_out: float = 0.1) -> list[float] | None:
    """Return an axis range without the worst values if they would squeeze the others into half of it; else None.

    Args:
        values: of the metric; non-finite ones are ignored.
        maximize: whether low values are the bad ones.
        leave_out: the largest share of values to leave out.
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


def _around_one(values: ArrayLike) -> list[float] | None:
    """Return an axis range around values that are all the same; else None. Plotly's own has a width of 2."""
    known = np.asarray(values, dtype=float)
    different = np.unique(known[np.isfinite(known)])
    return [float(different[0]) - HALF_WIDTH, float(different[0]) + HALF_WIDTH] if len(different) == 1 else None


def metric_format(metric: str) -> str:
    """Return the d3 format of a metric: an accuracy as percent, a loss with four decimals."""
    return ".2%" if metric.endswith("accuracy") else ".4f"


def metric_axis(metric: str, limits: list[float] | None = None) -> dict[str, Any]:
    """Return the axis of a metric, limited to `limits` if given. The axis of an accuracy stays within 0 and 100 %."""
    axis: dict[str, Any] = {"title": {"text": metric}, "range": limits}
    if metric.endswith("accuracy"):
        axis |= {"tickformat": ".4~p", "autorangeoptions": {"clipmin": 0, "clipmax": 1}}
        axis["range"] = limits and [max(limits[0], 0), min(limits[1], 1)]
    return axis


def metric_chart(
    name: str,
    title: str,
    caption: str,
    traces: Sequence[Any],
    *,
    values: ArrayLike,
    metric: str,
    maximize: bool,
    **layout: Any,
) -> Chart:
    """Return a chart of `values` of a metric on its vertical axis, without the worst ones where they squeeze others."""
    limits = value_range(values, maximize=maximize)
    if limits:
        caption += " The axis leaves out the worst values; a double click shows all."
    else:
        limits = _around_one(values)
    drawn = figure(traces, yaxis=metric_axis(metric, limits), **layout)
    return Chart(name=name, title=title, caption=caption, figure=drawn)
