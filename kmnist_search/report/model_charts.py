"""Charts of the retrained candidates and of the final models."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from kmnist_search.charts.chart import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    Chart,
    figure,
    joined,
    metric_axis,
    metric_format,
    single,
)
from kmnist_search.evaluation.metrics import CalibrationBin, Candidate, EpochFigures, Metrics
from kmnist_search.wording import percent


def reruns(candidates: Sequence[Candidate]) -> Chart:
    """Return a row for each candidate: its reruns, their mean, and its score in the study."""
    title = "Candidates, trained again"
    if not any(candidate.reruns for candidate in candidates):
        why = "There was one candidate and nothing to choose, so nothing was trained again."
        return Chart(name="reruns", title=title, caption=why, figure=None)
    rows = [f"trial {candidate.trial}" for candidate in candidates]
    dots = [(row, rerun) for row, each in zip(rows, candidates, strict=True) for rerun in each.reruns]
    means = [(row, each.mean_val_accuracy) for row, each in zip(rows, candidates, strict=True)]
    traces = [
        go.Scatter(
            x=single([each.study_val_accuracy for each in candidates]),
            y=rows,
            mode="markers",
            name="in the study",
            marker={"color": ORANGE, "symbol": "diamond-open", "size": 11, "line": {"width": 2}},
            hovertemplate="in the study %{x:.2%}<extra></extra>",
        ),
        go.Scatter(
            x=single([rerun.val_accuracy for _, rerun in dots]),
            y=[row for row, _ in dots],
            customdata=[rerun.seed for _, rerun in dots],
            mode="markers",
            name="a rerun",
            marker={"color": BLUE, "size": 9, "opacity": 0.65},
            hovertemplate="seed %{customdata}: %{x:.2%}<extra></extra>",
        ),
        go.Scatter(
            x=single([mean for _, mean in means if mean is not None]),
            y=[row for row, mean in means if mean is not None],
            mode="markers",
            name="mean of the reruns",
            marker={"color": INK, "symbol": "line-ns-open", "size": 20, "line": {"width": 2}},
            hovertemplate="mean %{x:.2%}<extra></extra>",
        ),
    ]
    drawn = figure(
        traces,
        height=130 + 34 * len(rows),
        xaxis={"title": {"text": "validation accuracy"}, "tickformat": ".4~p", "nticks": 6},
        yaxis={"autorange": "reversed", "type": "category"},
    )
    caption = (
        "Each candidate on fresh seeds and fresh splits. The farther the diamond lies to the right of the mean, the "
        "more of the score in the study may have been luck."
    )
    return Chart(name="reruns", title=title, caption=caption, figure=drawn)


def loss_curves(metrics: Metrics) -> Chart:
    """Return training losses of the final models and validation losses of the winner's reruns."""
    return curves(LOSS, *_lines(metrics), name="loss-curves", remark=OF_FINALS)


def accuracy_curves(metrics: Metrics) -> Chart:
    """Return training accuracies of the final models and validation accuracies of the winner's reruns."""
    return curves(ACCURACY, *_lines(metrics), name="accuracy-curves", remark=OF_FINALS)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The quantity that is drawn by epoch, on training and on validation images."""

    metric: str
    train: Callable[[EpochFigures], float]
    val: Callable[[EpochFigures], float | None]

    @property
    def title(self) -> str:
        return self.metric.capitalize()


@dataclass(frozen=True, kw_only=True)
class Lines:
    """The epochs of several trainings, by seed."""

    label: str
    trainings: Sequence[tuple[int, Sequence[EpochFigures]]]


LOSS = Curve(metric="loss", train=lambda epoch: epoch.train_loss, val=lambda epoch: epoch.val_loss)
ACCURACY = Curve(metric="accuracy", train=lambda epoch: epoch.train_accuracy, val=lambda epoch: epoch.val_accuracy)
OF_FINALS = " The final models train on all images: none is left to validate on."


def _lines(metrics: Metrics) -> tuple[Lines, Lines]:
    finals = [(model.seed, model.epochs) for model in metrics.test.models]
    again = [(rerun.seed, rerun.epochs) for rerun in metrics.candidates[0].reruns]
    return Lines(label="final models, training images", trainings=finals), Lines(
        label="reruns, validation images", trainings=again
    )


def curves(curve: Curve, trained: Lines, validated: Lines, *, name: str, remark: str = "") -> Chart:
    """Return the chart of training curves of some trainings and validation curves of others, by epoch."""
    traces, shown = [], metric_format(curve.metric)
    for lines, colour, reading in ((trained, BLUE, curve.train), (validated, ORANGE, curve.val)):
        values = [
            {epoch.number: value for epoch in epochs if (value := reading(epoch)) is not None}
            for _, epochs in lines.trainings
        ]
        if any(values):
            traces.append(
                go.Scatter(
                    **joined(values, [seed for seed, _ in lines.trainings]),
                    name=lines.label,
                    line={"color": colour, "width": 1.5},
                    opacity=0.8,
                    hovertemplate=f"seed %{{customdata}}, epoch %{{x}}: %{{y:{shown}}}<extra></extra>",
                )
            )
    caption = (
        f"{curve.title} after each epoch, a line for each seed. Training images may be augmented, and their labels "
        f"smoothed in the loss, so theirs can be the worse.{remark}"
    )
    drawn = figure(
        traces,
        xaxis={"title": {"text": "epoch"}, "rangemode": "tozero"},
        yaxis=metric_axis(curve.metric, None),
    )
    return Chart(name=name, title=f"{curve.title} curves", caption=caption, figure=drawn if traces else None)


def calibration(bins: Sequence[CalibrationBin], error: float) -> Chart:
    """Return a reliability diagram: accuracy against confidence, above the number of images in each bin."""
    filled = [each for each in bins if each.images]
    drawn = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.72, 0.28], vertical_spacing=0.06)
    drawn.update_layout(figure([], height=460).layout)
    drawn.add_trace(
        go.Scatter(
            x=[0, 1], y=[0, 1], mode="lines", name="perfect", line={"color": GREY, "dash": "dash"}, hoverinfo="skip"
        )
    )
    drawn.add_trace(
        go.Scatter(
            x=single([each.confidence for each in filled]),
            y=single([each.accuracy for each in filled]),
            customdata=[each.images for each in filled],
            mode="lines+markers",
            name="kept model",
            line={"color": BLUE},
            marker={"size": 8},
            hovertemplate="%{customdata} images: confidence %{x:.2%}, accuracy %{y:.2%}<extra></extra>",
        )
    )
    drawn.add_trace(
        go.Bar(
            x=single([(each.low + each.high) / 2 for each in filled]),
            y=[each.images for each in filled],
            width=[0.9 * (each.high - each.low) for each in filled],
            marker={"color": BLUE, "opacity": 0.6},
            showlegend=False,
            hovertemplate="%{y} images<extra></extra>",
        ),
        row=2,
        col=1,
    )
    drawn.update_xaxes(range=[0, 1.02], tickformat=".0%", automargin=True)
    drawn.update_xaxes(title_text="confidence", row=2, col=1)
    drawn.update_yaxes(title_text="accuracy", tickformat=".0%", range=[0, 1.04], row=1, col=1)
    drawn.update_yaxes(title_text="images", type="log", dtick=1, row=2, col=1)
    caption = (
        "Test images in bins of equal width by their confidence, the highest probability the model gives them. On the "
        "dashed line it is right as often as it says. Below, how many images a bin holds, on a log scale. Expected "
        f"calibration error: {percent(error)}."
    )
    return Chart(name="calibration", title="Calibration", caption=caption, figure=drawn)
