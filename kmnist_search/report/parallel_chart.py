"""The parallel-coordinates chart of all hyperparameters."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from kmnist_search.charts import trials as read
from kmnist_search.charts.chart import BLUE, GREY, LINE, ORANGE, Chart, figure, single, small
from kmnist_search.charts.search_charts import NOTHING_COMPLETE
from kmnist_search.wording import metric_text, value as shown


def parallel(trials: Sequence[FrozenTrial], metric: str, *, maximize: bool) -> Chart:
    """Return the chart: each complete trial is a line across all searched hyperparameters, coloured by rank.

    The lines are SVG, because plotly's `parcoords` needs WebGL, which some browsers lack, and which does not print.
    """
    title, spaces = "Parallel coordinates", read.searched(trials)
    # Sort the best first, so that ties break as everywhere; then draw the best on top.
    done = sorted(read.complete(trials), key=lambda trial: trial.values[0], reverse=maximize)[::-1]
    done = [trial for trial in done if all(_height(trial, name, spec) is not None for name, spec in spaces.items())]
    if not done or not spaces:
        why = NOTHING_COMPLETE if not done else "The study has no hyperparameter with more than one value."
        return Chart(name="parallel", title=title, caption=why, figure=None)
    lowest, highest = sorted((done[0].values[0], done[-1].values[0]))

    def height(trial: FrozenTrial) -> list[float]:
        places = [_height(trial, name, spec) or 0.0 for name, spec in spaces.items()]
        return [*places, (trial.values[0] - lowest) / (highest - lowest or 1.0)]

    tenth = len(done) - max(1, len(done) // 10)
    half = min(len(done) // 2, tenth)
    groups = (
        _lines(done[:half], height, "lower half", GREY, 1, 0.45),
        _lines(done[half:tenth], height, "upper half", GREY, 1, 0.9),
        _lines(done[tenth:-1], height, "best tenth", BLUE, 1.2, 0.9),
        _lines(done[-1:], height, "best", ORANGE, 3, 1),
    )
    marks = [mark for index, spec in enumerate(spaces.values()) for mark in _marks(index, spec)]
    marks += [_mark(len(spaces), 0, metric_text(metric, lowest)), _mark(len(spaces), 1, metric_text(metric, highest))]
    drawn = figure(
        [group for group in groups if len(group.x)],
        height=420,
        annotations=marks,
        legend={"y": 0, "yanchor": "top"},
        xaxis={
            "tickvals": list(range(len(spaces) + 1)),
            "ticktext": [name.replace("_", "_<br>") for name in (*spaces, metric)],
            "tickangle": 0,
            "side": "top",
            "gridcolor": LINE,
            "gridwidth": 2,
            "range": [-0.4, len(spaces) + 0.5],
        },
        yaxis={"visible": False, "range": [-0.06, 1.06]},
    )
    return Chart(
        name="parallel",
        title=title,
        caption=f"Each line is a complete trial, each axis a hyperparameter, the last one {metric}.",
        figure=drawn,
        min_width=84 * (len(spaces) + 1),
    )


def _lines(
    trials: Sequence[FrozenTrial],
    height: Callable[[FrozenTrial], list[float]],
    name: str,
    colour: str,
    width: float,
    opacity: float,
) -> go.Scatter:
    """Return trials as one line with gaps, at their heights on the axes."""
    heights = [height(trial) for trial in trials]
    axes = len(heights[0]) if heights else 0
    return go.Scatter(
        x=small([*range(axes), 0] * len(trials)),
        y=single([place for places in heights for place in (*places, np.nan)]),
        customdata=small(np.repeat([trial.number for trial in trials], axes + 1)),
        mode="lines",
        name=name,
        line={"color": colour, "width": width},
        opacity=opacity,
        hovertemplate="trial %{customdata}<extra>" + name + "</extra>",
    )


def _height(trial: FrozenTrial, name: str, spec: BaseDistribution) -> float | None:
    """Return a trial's place on the axis of a hyperparameter, from 0 (lowest value) to 1 (highest)."""
    if name not in trial.params:
        return None
    value = trial.params[name]
    if isinstance(spec, CategoricalDistribution):
        return spec.choices.index(value) / (len(spec.choices) - 1) if value in spec.choices else None
    assert isinstance(spec, IntDistribution | FloatDistribution)
    if spec.log and value <= 0:
        return None
    scale = math.log if spec.log else float
    low, high = scale(spec.low), scale(spec.high)
    return (scale(value) - low) / (high - low)


def _marks(index: int, spec: BaseDistribution) -> list[dict[str, Any]]:
    if isinstance(spec, CategoricalDistribution):
        last = len(spec.choices) - 1
        return [_mark(index, place / last, str(choice)) for place, choice in enumerate(spec.choices)]
    assert isinstance(spec, IntDistribution | FloatDistribution)
    return [_mark(index, 0, shown(spec.low)), _mark(index, 1, shown(spec.high))]


def _mark(index: int, height: float, text: str) -> dict[str, Any]:
    return {"x": index, "y": height, "text": text}
