"""Charts of the search results: the best value so far, and the effect of the hyperparameters."""

import math
from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from kmnist_search.charts import trials as read
from kmnist_search.charts.chart import (
    Chart,
    figure,
    metric_axis,
    metric_chart,
    metric_format,
    single,
    small,
    value_range,
    whole_axis,
)
from kmnist_search.charts.colours import BLUE, GREY, ORANGE
from kmnist_search.charts.importance import Importances
from kmnist_search.charts.trials import SearchHistory
from kmnist_search.wording import count, percent

NOTHING_COMPLETE = "No trial is complete yet."
#: Integer ranges with at most this many values are drawn like lists.
FEW_NUMBERS = 10
#: From this many complete trials on, the axis may leave out pruned ones.
ENOUGH_COMPLETE = 20


def best_by_trials(history: SearchHistory, metric: str, *, maximize: bool) -> Chart:
    """Return the best value so far against the number of finished trials."""
    caption = "Each dot is a complete trial, in the order in which they ended. The line is the best value so far."
    x = np.arange(1, len(history.values) + 1, dtype=np.int32)
    axis = whole_axis("finished trials", len(x))
    return _best(history, x, "trials", axis, caption, metric, maximize=maximize)


def best_by_seconds(history: SearchHistory, metric: str, *, maximize: bool, clock: str) -> Chart:
    """Return the best value so far against the training time of all trials up to then."""
    caption = f"The same against the {clock} of all trials up to then, including pruned and failed ones."
    if history.num_untimed:
        caption += f" The time of {count(history.num_untimed, 'trial')} is not known and counts as 0."
    axis = {"title": {"text": clock}}
    return _best(history, single(history.seconds), "seconds", axis, caption, metric, maximize=maximize)


def _best(
    history: SearchHistory, x: NDArray[Any], by: str, axis: dict[str, Any], caption: str, metric: str, *, maximize: bool
) -> Chart:
    name, title = f"best-by-{by}", f"Best so far, by {axis['title']['text']}"
    done = np.isfinite(history.values)
    if not done.any():
        return Chart(name=name, title=title, caption=NOTHING_COMPLETE, figure=None)
    dots = go.Scatter(
        x=x[done],
        y=single(history.values[done]),
        customdata=history.numbers[done],
        mode="markers",
        name="complete trial",
        marker={"color": BLUE, "size": 6, "opacity": 0.7},
        hovertemplate=f"trial %{{customdata}}: %{{y:{metric_format(metric)}}}<extra></extra>",
    )
    line = go.Scatter(
        x=x,
        y=single(history.best),
        mode="lines",
        name="best so far",
        line={"color": ORANGE, "width": 2.5, "shape": "hv"},
        hovertemplate=f"best %{{y:{metric_format(metric)}}}<extra></extra>",
    )
    return metric_chart(
        name,
        title,
        caption,
        [line, dots],
        values=history.values,
        metric=metric,
        maximize=maximize,
        xaxis=axis,
    )


def importance(found: Importances) -> Chart:
    """Return the importance of each hyperparameter as a bar."""
    if not found.shares:
        return Chart(name="importance", title="Hyperparameter importance", caption=found.note, figure=None)
    names, shares = list(found.shares), list(found.shares.values())
    bars = go.Bar(
        x=single(shares),
        y=names,
        orientation="h",
        marker={"color": BLUE},
        text=[percent(share, digits=0) for share in shares],
        textposition="outside",
        cliponaxis=False,
        hoverinfo="skip",
    )
    drawn = figure(
        [bars],
        height=60 + 26 * len(names),
        xaxis={"title": {"text": "share of importance"}, "tickformat": ".0%", "range": [0, 1.15 * max(shares)]},
        yaxis={"autorange": "reversed", "showgrid": False},
    )
    return Chart(name="importance", title="Hyperparameter importance", caption=found.note, figure=drawn)


def slices(trials: Sequence[FrozenTrial], metric: str, *, maximize: bool) -> list[Chart]:
    """Return, for each searched hyperparameter, a chart of the trials' values against it."""
    done = [(trial, trial.values[0]) for trial in read.complete(trials)]
    ended = [
        (trial, trial.intermediate_values[max(trial.intermediate_values)])
        for trial in trials
        if trial.state == TrialState.PRUNED and trial.intermediate_values
    ]
    groups = (
        ("pruned, at its last report", {"color": GREY, "size": 5, "opacity": 0.45}, ended),
        ("complete", {"color": BLUE, "size": 6, "opacity": 0.85}, done),
    )
    limits = _slice_range([value for _, value in done], [value for _, value in ended], maximize=maximize)
    charts: list[Chart] = []
    for name, spec in read.searched(trials).items():
        traces = [
            go.Scatter(
                **_positions(valued, name, spec),
                mode="markers",
                name=label,
                marker=marker,
                hovertemplate=f"trial %{{customdata}}: %{{y:{metric_format(metric)}}}<extra>{label}</extra>",
            )
            for label, marker, valued in groups
        ]
        if any(len(trace.x) for trace in traces):
            drawn = figure(
                traces,
                height=230,
                showlegend=False,
                xaxis=_slice_axis(spec),
                yaxis={**metric_axis(metric, limits), "title": None, "nticks": 6},
            )
            charts.append(Chart(name=f"slice-{len(charts)}", title=name, caption="", figure=drawn))
    return charts


def _slice_range(done: Sequence[float], ended: Sequence[float], *, maximize: bool) -> list[float] | None:
    """Return the range of the value axis: with many complete trials, theirs alone, to show small differences."""
    if len(done) < ENOUGH_COMPLETE or min(done) == max(done):
        return value_range([*done, *ended], maximize=maximize, leave_out=0.25)
    margin = 0.06 * (max(done) - min(done))
    return value_range(done, maximize=maximize) or [min(done) - margin, max(done) + margin]


def _positions(valued: Sequence[tuple[FrozenTrial, float]], name: str, spec: BaseDistribution) -> dict[str, Any]:
    having = [(trial, value) for trial, value in valued if _position(trial, name, spec) is not None]
    return {
        "x": single([_position(trial, name, spec) for trial, _ in having]),
        "y": single([value for _, value in having]),
        "customdata": small([trial.number for trial, _ in having]),
    }


def _position(trial: FrozenTrial, name: str, spec: BaseDistribution) -> float | None:
    """Return a trial's position on the axis of a hyperparameter; None if it has no value on this axis."""
    if name not in trial.params:
        return None
    value = trial.params[name]
    # The golden ratio spreads trials evenly and reproducibly.
    aside = 0.5 * (trial.number * 0.618034 % 1 - 0.5)
    if isinstance(spec, CategoricalDistribution):
        return spec.choices.index(value) + aside if value in spec.choices else None
    if not isinstance(value, int | float):
        return None
    return value + aside * spec.step if _has_few(spec) else float(value)


def _has_few(spec: BaseDistribution) -> TypeGuard[IntDistribution]:
    return isinstance(spec, IntDistribution) and not spec.log and (spec.high - spec.low) // spec.step < FEW_NUMBERS


def _slice_axis(spec: BaseDistribution) -> dict[str, Any]:
    if isinstance(spec, CategoricalDistribution):
        names = [str(choice) for choice in spec.choices]
        return {
            "tickvals": list(range(len(names))),
            "ticktext": names,
            "range": [-0.5, len(names) - 0.5],
            "showgrid": False,
        }
    if _has_few(spec):
        numbers = list(range(spec.low, spec.high + 1, spec.step))
        return {"tickvals": numbers, "showgrid": False}
    if isinstance(spec, IntDistribution | FloatDistribution) and spec.log:
        ticks = _log_ticks(spec.low, spec.high)
        return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
    return {"nticks": 6}


def _log_ticks(low: float, high: float) -> list[float]:
    """Return round numbers from `low` to `high`: powers of ten, and for short ranges also 2 and 5 times those."""
    steps = (1, 2, 5) if high < 60 * low else (1,)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [float(f"{step}e{exponent}") for exponent in exponents for step in steps]
    return [tick for tick in ticks if low <= tick <= high]
