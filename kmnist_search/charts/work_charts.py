"""Charts of the work on trials: their learning curves, and which worker trained them when."""

from collections.abc import Sequence

import plotly.graph_objects as go
from optuna.trial import FrozenTrial, TrialState

from kmnist_search.charts.chart import Chart, figure, metric_chart, metric_format, single, small
from kmnist_search.charts.colours import BLUE, CARD, GREEN, GREY, ORANGE, PURPLE, RED
from kmnist_search.charts.curves import curve_traces, epoch_axis
from kmnist_search.charts.trials import OUTCOMES, TimedAttempt

CURVES_HEIGHT = 420
_COLOURS = dict(zip(OUTCOMES, (BLUE, GREY, RED, GREEN, ORANGE, PURPLE), strict=True))
#: With more rows than this, their names would be unreadable.
MOST_NAMED_ROWS = 60


def learning_curves(trials: Sequence[FrozenTrial], best: FrozenTrial | None, metric: str, *, maximize: bool) -> Chart:
    """Return the metric by epoch of all trials: pruned ones pale, the best one on top."""
    title = "Learning curves"
    if not any(trial.intermediate_values for trial in trials):
        return Chart(name="curves", title=title, caption="No trial has reported an epoch yet.", figure=None)
    groups = (
        ("pruned", GREY, 1, 0.4, [trial for trial in trials if trial.state == TrialState.PRUNED]),
        ("failed", RED, 1, 0.8, [trial for trial in trials if trial.state == TrialState.FAIL]),
        ("running", GREEN, 1.5, 0.9, [trial for trial in trials if trial.state == TrialState.RUNNING]),
        ("complete", BLUE, 1.2, 0.6, [trial for trial in trials if trial.state == TrialState.COMPLETE]),
        ("best", ORANGE, 3, 1, [best] if best else []),
    )
    traces = [
        trace
        for name, colour, width, opacity, group in groups
        for trace in curve_traces(
            [trial.intermediate_values for trial in group],
            [trial.number for trial in group],
            name=name,
            line={"color": colour, "width": width},
            opacity=opacity,
            hovertemplate=f"trial %{{customdata}}, epoch %{{x}}: %{{y:{metric_format(metric)}}}<extra>{name}</extra>",
        )
    ]
    return metric_chart(
        "curves",
        title,
        f"{metric} after each epoch, a line for each trial; a dot if it has one epoch.",
        traces,
        values=[value for trial in trials for value in trial.intermediate_values.values()],
        metric=metric,
        maximize=maximize,
        height=CURVES_HEIGHT,
        xaxis=epoch_axis([trial.intermediate_values for trial in trials]),
    )


def best_curves(best: Sequence[FrozenTrial], metric: str, *, maximize: bool) -> Chart:
    """Return the metric by epoch of the best trials, one line each, the best one on top."""
    title = "Learning curves of the best"
    known = [trial for trial in best if trial.intermediate_values]
    if not known:
        return Chart(name="best-curves", title=title, caption="No trial is complete yet.", figure=None)
    traces = [
        go.Scatter(
            x=small(list(trial.intermediate_values)),
            y=single(list(trial.intermediate_values.values())),
            mode="lines+markers" if len(trial.intermediate_values) == 1 else "lines",
            name=f"trial {trial.number}",
            line={"color": BLUE if rank else ORANGE, "width": 1.5 if rank else 3},
            opacity=max(1 - 0.08 * rank, 0.2),
            hovertemplate=f"epoch %{{x}}: %{{y:{metric_format(metric)}}}",
        )
        for rank, trial in enumerate(known)
    ]
    caption = f"{metric} after each epoch; the best trial is the thick line."
    return metric_chart(
        "best-curves",
        title,
        caption,
        traces[::-1],
        values=[value for trial in known for value in trial.intermediate_values.values()],
        metric=metric,
        maximize=maximize,
        height=CURVES_HEIGHT,
        xaxis=epoch_axis([trial.intermediate_values for trial in known]),
        legend={"traceorder": "reversed"},
    )


def timeline(attempts: Sequence[TimedAttempt]) -> Chart:
    """Return a chart with one row for each worker process and one bar for each of its attempts."""
    title = "Timeline of the workers"
    if not attempts:
        return Chart(name="timeline", title=title, caption="The trials do not say who ran them.", figure=None)
    workers = list(dict.fromkeys(attempt.worker for attempt in attempts))
    row = {worker: index for index, worker in enumerate(workers)}
    traces = []
    for outcome in OUTCOMES:
        group = [attempt for attempt in attempts if attempt.outcome == outcome]
        if group:
            traces.append(
                go.Bar(
                    orientation="h",
                    base=[round(attempt.began) for attempt in group],
                    x=single([attempt.ended - attempt.began for attempt in group]),
                    y=small([row[attempt.worker] for attempt in group]),
                    customdata=small([attempt.number for attempt in group]),
                    name=outcome,
                    marker={"color": _COLOURS[outcome], "line": {"color": CARD, "width": 1}},
                    hovertemplate="trial %{customdata}<extra>" + outcome + "</extra>",
                )
            )
    named = len(workers) <= MOST_NAMED_ROWS
    drawn = figure(
        traces,
        height=100 + (24 if named else 6) * len(workers),
        barmode="overlay",
        bargap=0.25,
        xaxis={"type": "date", "nticks": 6},
        yaxis={
            "tickvals": list(range(len(workers))) if named else [],
            "ticktext": workers if named else [],
            "range": [len(workers) - 0.5, -0.5],
            "showgrid": False,
        },
    )
    caption = (
        "A row for each worker process (machine and process number), a bar for each of its attempts at a trial. Times "
        "are in UTC."
    )
    return Chart(name="timeline", title=title, caption=caption, figure=drawn)
