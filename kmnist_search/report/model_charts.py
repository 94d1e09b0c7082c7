"""Charts of the retrained candidates and of the final models."""

from collections.abc import Mapping, Sequence
from typing import Literal

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from kmnist_search.charts.chart import Chart, figure, metric_axis, metric_format, single
from kmnist_search.charts.colours import BLUE, GREY, INK, ORANGE
from kmnist_search.charts.curves import Curve, curve_traces, epoch_axis
from kmnist_search.evaluation.metrics import CalibrationBin, Candidate, EpochFigures, Metrics
from kmnist_search.wording import percent

#: The epochs of several trainings, by seed.
EpochsBySeed = Mapping[int, Sequence[EpochFigures]]


def reruns(candidates: Sequence[Candidate]) -> Chart:
    """Return a row for each candidate: its reruns, their mean, and its score in the study."""
    title = "Candidates, retrained"
    if not any(candidate.reruns for candidate in candidates):
        why = "There was only one candidate, so nothing was rerun."
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
        xaxis={**metric_axis("validation accuracy"), "nticks": 6},
        yaxis={"autorange": "reversed", "type": "category"},
    )
    caption = (
        "Each candidate with fresh seeds and fresh splits. The farther the diamond lies to the right of the mean, the "
        "more of the study's score may have been luck."
    )
    return Chart(name="reruns", title=title, caption=caption, figure=drawn)


def final_curves(metrics: Metrics, metric: Literal["loss", "accuracy"]) -> Chart:
    """Return training curves of the final models and validation curves of the winner's reruns."""
    return curves(
        metric,
        {model.seed: model.epochs for model in metrics.test.models},
        {rerun.seed: rerun.epochs for rerun in metrics.candidates[0].reruns},
        labels=("final models, training images", "reruns, validation images"),
        name=f"{metric}-curves",
        remark=" The final models train on all images: none is left to validate on.",
    )


def curves(
    metric: Literal["loss", "accuracy"],
    trained: EpochsBySeed,
    validated: EpochsBySeed,
    *,
    labels: tuple[str, str] = ("training images", "validation images"),
    name: str,
    remark: str = "",
) -> Chart:
    """Return the chart of training curves of some trainings and validation curves of others, by epoch."""
    traces: list[go.Scatter] = []
    drawn_curves: list[Curve] = []
    for by_seed, label, colour, field in zip(
        (trained, validated), labels, (BLUE, ORANGE), (f"train_{metric}", f"val_{metric}"), strict=True
    ):
        values = [
            {epoch.number: value for epoch in epochs if (value := getattr(epoch, field)) is not None}
            for epochs in by_seed.values()
        ]
        drawn_curves += values
        traces += curve_traces(
            values,
            list(by_seed),
            name=label,
            line={"color": colour, "width": 1.5},
            opacity=0.8,
            hovertemplate=f"seed %{{customdata}}, epoch %{{x}}: %{{y:{metric_format(metric)}}}<extra></extra>",
        )
    title = f"{metric.capitalize()} curves"
    caption = (
        f"{metric.capitalize()} after each epoch, a line for each seed. Training images may be augmented, and their "
        f"labels smoothed in the loss, so training figures can be worse than validation figures.{remark}"
    )
    drawn = figure(traces, xaxis=epoch_axis(drawn_curves), yaxis=metric_axis(metric)) if traces else None
    return Chart(name=name, title=title, caption=caption, figure=drawn)


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
            cliponaxis=False,
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
    drawn.update_xaxes(range=[0, 1], tickformat=".0%", automargin=True)
    drawn.update_xaxes(title_text="confidence", row=2, col=1)
    drawn.update_yaxes(title_text="accuracy", tickformat=".0%", range=[0, 1], row=1, col=1)
    drawn.update_yaxes(title_text="images", type="log", dtick=1, row=2, col=1)
    caption = (
        "Test images in bins of equal width by confidence: the highest probability that the model gives them. On the "
        "dashed line, accuracy equals confidence. Below: the number of images in each bin, on a log scale. Expected "
        f"calibration error: {percent(error)}."
    )
    return Chart(name="calibration", title="Calibration", caption=caption, figure=drawn)
