"""The parallel-coordinates chart of all hyperparameters."""

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from kmnist_search.charts import trials as read
from kmnist_search.charts.chart import Chart, figure
from kmnist_search.charts.colours import BLUE, GREY, LINE, ORANGE
from kmnist_search.charts.curves import joined
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

    def heights(trial: FrozenTrial) -> list[float]:
        places = [_height(trial, name, spec) or 0.0 for name, spec in spaces.items()]
        return [*places, (trial.values[0] - lowest) / (highest - lowest or 1.0)]

    tenth = len(done) - max(1, len(done) // 10)
    half = min(len(done) // 2, tenth)
    groups = (
        ("lower half", GREY, 1, 0.45, done[:half]),
        ("upper half", GREY, 1, 0.9, done[half:tenth]),
        ("best tenth", BLUE, 1.2, 0.9, done[tenth:-1]),
        ("best", ORANGE, 3, 1, done[-1:]),
    )
    traces = [
        go.Scatter(
            **joined([dict(enumerate(heights(trial))) for trial in group], [trial.number for trial in group]),
            name=name,
            mode="lines",
            line={"color": colour, "width": width},
            opacity=opacity,
            hovertemplate="trial %{customdata}<extra>" + name + "</extra>",
        )
        for name, colour, width, opacity, group in groups
        if group
    ]
    marks = [mark for index, spec in enumerate(spaces.values()) for mark in _marks(index, spec)]
    marks += [
        {"x": len(spaces), "y": end, "text": metric_text(metric, value)} for end, value in enumerate((lowest, highest))
    ]
    drawn = figure(
        traces,
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
        return [{"x": index, "y": place / last, "text": str(choice)} for place, choice in enumerate(spec.choices)]
    assert isinstance(spec, IntDistribution | FloatDistribution)
    return [{"x": index, "y": end, "text": shown(value)} for end, value in enumerate((spec.low, spec.high))]
