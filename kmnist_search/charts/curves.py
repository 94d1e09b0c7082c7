"""Curves by epoch: many in one trace, and their axis."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from kmnist_search.charts.chart import single, small, whole_axis

#: The value by epoch.
Curve = Mapping[int, float]
DOT_SIZE = 7


def epoch_axis(curves: Sequence[Curve]) -> dict[str, Any]:
    """Return the axis of the epochs of some curves."""
    return whole_axis("epoch", max((epoch for curve in curves for epoch in curve), default=1), rangemode="tozero")


def curve_traces(
    curves: Sequence[Curve],
    ids: Sequence[int],
    *,
    name: str,
    hovertemplate: str,
    line: Mapping[str, Any],
    opacity: float,
) -> list[go.Scatter]:
    """Return a trace of all curves, and one of dots for those of a single epoch: a line of one point is not seen.

    Args:
        curves: those to draw.
        ids: the `customdata` of each curve.
        name: of all of them, in the legend.
        hovertemplate: see plotly.
        line: of the curves; dots have its colour.
        opacity: of lines and dots.
    """
    found = list(zip(curves, ids, strict=True))
    lines = [each for each in found if len(each[0]) > 1]
    dots = [each for each in found if len(each[0]) == 1]
    same = {"name": name, "legendgroup": name, "hovertemplate": hovertemplate, "opacity": opacity}
    traces = []
    if lines:
        traces.append(go.Scatter(**joined(*zip(*lines, strict=True)), **same, mode="lines", line=line))
    if dots:
        marker = {"color": line["color"], "size": DOT_SIZE}
        drawn = joined(*zip(*dots, strict=True))
        traces.append(go.Scatter(**drawn, **same, mode="markers", marker=marker, showlegend=not lines))
    return traces


def joined(curves: Sequence[Curve], ids: Sequence[int]) -> dict[str, Any]:
    """Return curves as one line with gaps, because one line each would add a thousand elements to the page.

    Args:
        curves: those to join.
        ids: the `customdata` of each curve.
    """
    x, y, names = [], [], []
    for curve, name in zip(curves, ids, strict=True):
        x += [*curve.keys(), 0]
        y += [*curve.values(), np.nan]
        names += [name] * (len(curve) + 1)
    return {"x": small(x), "y": single(y), "customdata": small(names)}
