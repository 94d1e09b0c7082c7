"""Charts of cost: accuracy by parameters, and time spent on pruned and failed trials."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from optuna.trial import FrozenTrial

from kmnist_search.charts.chart import Chart, figure, metric_chart, metric_format, single, small
from kmnist_search.charts.colours import BLUE, GREEN, GREY, ORANGE, RED
from kmnist_search.charts.trials import PruningSavings
from kmnist_search.study.ranking import SIZE_KEY, front
from kmnist_search.wording import count, duration_text, value as shown

DOT_SIZE = 6


def size_and_value(
    ranked: Sequence[FrozenTrial], metric: str, *, maximize: bool, most: int, described: bool = True
) -> Chart:
    """Return the `most` best trials by their number of parameters, with their Pareto front as a step line.

    Args:
        ranked: complete trials, best first.
        metric: of the value.
        maximize: whether a higher value is better.
        most: the largest number of trials to draw.
        described: whether each trial is drawn with its hyperparameters, or only those on the front.
    """
    name, title = "size", f"{metric.rpartition('_')[2].capitalize()} against parameters"
    known = [trial for trial in ranked if isinstance(trial.user_attrs.get(SIZE_KEY), int)]
    if not known:
        return Chart(name=name, title=title, caption="No complete trial has a number of parameters.", figure=None)
    best, values = front(known), [trial.values[0] for trial in known[:most]]
    hover = f"trial %{{customdata}}: %{{y:{metric_format(metric)}}}, %{{x:,}} parameters"
    dots = go.Scatter(
        **_places(known[:most]),
        text=_settings(known[:most]) if described else None,
        mode="markers",
        name="complete trial",
        marker={"color": BLUE, "size": DOT_SIZE, "opacity": 0.6},
        hovertemplate=hover + ("<br>%{text}" if described else "") + "<extra></extra>",
    )
    line = go.Scatter(
        **_places(best),
        text=_settings(best),
        mode="lines+markers",
        name="Pareto front",
        line={"color": ORANGE, "width": 2, "shape": "hv"},
        # The pointer finds the smaller marker of two at one place, or the later one, so only the outline is wider.
        marker={"size": DOT_SIZE, "line": {"color": ORANGE, "width": 3}},
        hovertemplate=hover + "<br>%{text}<extra>Pareto front</extra>",
    )
    return metric_chart(
        name,
        title,
        "Each dot is a complete trial. The line is the Pareto front: the best value of a net with at most so many "
        "parameters. A trial is on it if no smaller one is as good.",
        [dots, line],
        values=values,
        metric=metric,
        maximize=maximize,
        xaxis={"title": {"text": "parameters"}, "type": "log", "nticks": 6, "tickformat": "~s"},
    )


def _places(trials: Sequence[FrozenTrial]) -> dict[str, Any]:
    return {
        "x": small([trial.user_attrs[SIZE_KEY] for trial in trials]),
        "y": single([trial.values[0] for trial in trials]),
        "customdata": small([trial.number for trial in trials]),
    }


def _settings(trials: Sequence[FrozenTrial]) -> list[str]:
    """Return the hyperparameters of each trial, one on a line."""
    return ["<br>".join(f"{name} {shown(value, 3)}" for name, value in trial.params.items()) for trial in trials]


def spent(by_outcome: Mapping[str, tuple[int, float]], savings: PruningSavings, clock: str) -> Chart:
    """Return bars of the time by outcome of trials, and of the time that pruning saved."""
    bars = [(f"{name}<br>{count(trials, 'trial')}", time) for name, (trials, time) in by_outcome.items()]
    bars.append(("saved by<br>pruning, about", savings.seconds))
    if not any(time for _, time in bars):
        return Chart(name="spent", title="Time spent", caption="The time of no trial is known.", figure=None)
    drawn = figure(
        [
            go.Bar(
                x=[name for name, _ in bars],
                y=[time for _, time in bars],
                text=[duration_text(time) for _, time in bars],
                textposition="outside",
                cliponaxis=False,
                marker={"color": [BLUE, GREY, RED, GREEN], "opacity": [1, 1, 1, 0.55]},
                hoverinfo="skip",
            )
        ],
        xaxis={"type": "category", "showgrid": False},
        yaxis={"title": {"text": clock}, "nticks": 6},
    )
    caption = (
        "The training time of trials by how they ended, and the time that the pruned ones would have taken in "
        "addition: their time per epoch, times the epochs not run."
    )
    return Chart(name="spent", title="Time spent on trials, by how they ended", caption=caption, figure=drawn)
