"""What the charts of a report are drawn from, and what goes with them into the page."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from kmnist_search.charts import cost_charts, search_charts, trials as read, work_charts
from kmnist_search.charts.chart import Chart, figure, metric_axis, small, value_range
from kmnist_search.charts.curves import joined
from kmnist_search.charts.trials import TimedAttempt
from kmnist_search.evaluation.metrics import CalibrationBin, EpochFigures
from kmnist_search.report import model_charts, parallel_chart
from tests.unit.charts.test_trials import trial

SPACES: dict[str, BaseDistribution] = {
    "rate": FloatDistribution(1e-4, 1e-2, log=True),
    "depth": IntDistribution(1, 8),
    "width": CategoricalDistribution([32, 64, 128]),
}


def searched(number: int, value: float | None, rate: float, depth: int, width: int, **more: Any) -> FrozenTrial:
    params = {"rate": rate, "depth": depth, "width": width}
    return trial(number, value, params=params, distributions=SPACES, **more)


TRIALS = [
    searched(0, 0.5, 1e-4, 1, 32, reports={1: 0.4, 2: 0.5}),
    searched(1, None, 1e-3, 4, 64, state=TrialState.PRUNED, reports={1: 0.2}),
    searched(2, 0.9, 1e-2, 8, 128, reports={1: 0.6, 2: 0.9}),
]


def traces(chart: Chart) -> dict[str, Any]:
    assert chart.figure is not None
    return {trace.name: trace for trace in chart.figure.data}


def test_the_line_of_the_best_never_falls_and_passes_through_the_best_trials() -> None:
    history = read.history(TRIALS, StudyDirection.MAXIMIZE)
    drawn = traces(search_charts.best_by_trials(history, "val_accuracy", maximize=True))
    assert drawn["best so far"].y.tolist() == pytest.approx([0.5, 0.5, 0.9])
    assert drawn["complete trial"].x.tolist() == [1, 3]
    assert drawn["complete trial"].customdata.tolist() == [0, 2]


def test_without_a_complete_trial_charts_say_so() -> None:
    pruned = TRIALS[1:2]
    history = read.history(pruned, StudyDirection.MAXIMIZE)
    for chart in (
        search_charts.best_by_trials(history, "val_accuracy", maximize=True),
        search_charts.best_by_seconds(history, "val_accuracy", maximize=True, clock="training seconds"),
        parallel_chart.parallel(pruned, "val_accuracy", maximize=True),
    ):
        assert chart.figure is None
        assert chart.caption == "No trial is complete yet."


def test_curves_are_one_line_for_each_state_with_gaps_between_trials() -> None:
    drawn = traces(work_charts.learning_curves(TRIALS, TRIALS[2], "val_accuracy", maximize=True))
    assert list(drawn) == ["pruned", "complete", "best"]
    line = drawn["complete"]
    assert line.x.tolist() == [1, 2, 0, 1, 2, 0]
    assert np.isnan(line.y).tolist() == [False, False, True, False, False, True]
    assert line.customdata.tolist() == [0, 0, 0, 2, 2, 2]
    assert drawn["pruned"].opacity < drawn["complete"].opacity < drawn["best"].opacity


def test_slices_put_choices_side_by_side_and_log_ranges_on_a_log_axis() -> None:
    charts = {chart.title: chart for chart in search_charts.slices(TRIALS, "val_accuracy", maximize=True)}
    assert list(charts) == ["rate", "depth", "width"]
    rate, width = charts["rate"].figure, charts["width"].figure
    assert rate is not None
    assert width is not None
    assert rate.layout.xaxis.type == "log"
    assert rate.layout.xaxis.ticktext == ("0.0001", "0.001", "0.01")
    assert width.layout.xaxis.ticktext == ("32", "64", "128")
    done = traces(charts["width"])["complete"]
    assert np.round(done.x).tolist() == [0, 2]  # spread a little around their choice
    assert done.y.tolist() == pytest.approx([0.5, 0.9])
    assert traces(charts["width"])["pruned, at its last report"].y.tolist() == pytest.approx([0.2])


def test_a_trial_without_a_hyperparameter_is_left_out_of_its_slice() -> None:
    charts = search_charts.slices([*TRIALS, trial(3, 0.7)], "val_accuracy", maximize=True)
    assert traces(charts[0])["complete"].customdata.tolist() == [0, 2]


def test_parallel_lines_go_from_lowest_to_highest_value_of_each_hyperparameter() -> None:
    drawn = traces(parallel_chart.parallel(TRIALS, "val_accuracy", maximize=True))
    assert drawn["best"].y[:4].tolist() == pytest.approx([1, 1, 1, 1])
    assert drawn["lower half"].y[:4].tolist() == pytest.approx([0, 0, 0, 0])
    assert np.isnan(drawn["best"].y[4])


def test_a_value_that_does_not_fit_its_axis_leaves_the_trial_out() -> None:
    foreign = searched(3, 0.95, 0.0, 1, 32)  # no place on a log scale
    odd = searched(4, 0.95, 1e-3, 1, 48)  # none of the choices
    drawn = traces(parallel_chart.parallel([foreign, odd, *TRIALS], "val_accuracy", maximize=True))
    assert {int(number) for trace in drawn.values() for number in trace.customdata} == {0, 2}
    width = search_charts.slices([odd, *TRIALS], "val_accuracy", maximize=True)[2]
    assert traces(width)["complete"].customdata.tolist() == [0, 2]


def test_of_losses_the_lowest_is_the_best_line() -> None:
    drawn = traces(parallel_chart.parallel(TRIALS, "val_loss", maximize=False))
    assert drawn["best"].customdata[0] == 0


def test_the_timeline_has_a_row_for_each_process_and_a_bar_for_each_attempt() -> None:
    attempts = [
        TimedAttempt(worker="a 1", number=0, began=0, ended=1000, outcome="complete"),
        TimedAttempt(worker="b 2", number=1, began=500, ended=900, outcome="lost"),
        TimedAttempt(worker="a 1", number=2, began=1000, ended=1500, outcome="complete"),
    ]
    chart = work_charts.timeline(attempts)
    drawn = traces(chart)
    assert chart.figure is not None
    assert chart.figure.layout.yaxis.ticktext == ("a 1", "b 2")
    assert drawn["complete"].y.tolist() == [0, 0]
    assert drawn["complete"].x.tolist() == [1000, 500]
    assert drawn["lost"].base == (500,)
    assert work_charts.timeline([]).figure is None


def test_calibration_draws_the_bins_that_hold_images() -> None:
    bins = [
        CalibrationBin(low=0, high=0.5, images=0, confidence=None, accuracy=None),
        CalibrationBin(low=0.5, high=1, images=8, confidence=0.75, accuracy=0.5),
    ]
    chart = model_charts.calibration(bins, 0.25)
    kept = traces(chart)["kept model"]
    assert (kept.x.tolist(), kept.y.tolist()) == ([0.75], [0.5])
    assert "25.00 %" in chart.caption


def test_an_axis_leaves_out_the_worst_only_if_they_squeeze_the_others() -> None:
    even = np.linspace(0.9, 1, 50)
    assert value_range(even, maximize=True) is None
    low, high = value_range([0.1, *even], maximize=True) or (0.0, 0.0)
    assert 0.89 < low < 0.91
    assert high > 1
    low, high = value_range([9.0, *(1 - even)], maximize=False) or (0.0, 0.0)
    assert low < 0
    assert 0.09 < high < 0.11
    assert value_range([float("nan"), 0.5], maximize=True) is None


def test_an_axis_of_accuracies_stays_within_0_and_100_percent() -> None:
    history = read.history(TRIALS[:1], StudyDirection.MAXIMIZE)
    many = read.history([trial(0, 0.1), *(trial(1 + n, 0.99 + n / 5000) for n in range(50))], StudyDirection.MAXIMIZE)
    for found in (history, many):
        figure = search_charts.best_by_trials(found, "val_accuracy", maximize=True).figure
        assert figure is not None
        axis = figure.layout.yaxis
        assert (axis.autorangeoptions.clipmin, axis.autorangeoptions.clipmax) == (0, 1)
    assert axis.range[1] == 1
    assert metric_axis("val_loss", [0.2, 1.6])["range"] == [0.2, 1.6]


def test_numbers_take_as_few_bytes_as_they_need() -> None:
    assert small([1, 255]).dtype == np.uint8
    assert small([1, 256]).dtype == np.uint16
    assert small([]).tolist() == []
    assert joined([{1: 0.5}], [7])["y"].dtype == np.float32


def test_no_text_in_a_figure_can_end_the_script_it_stands_in() -> None:
    name = "</script><script>alert(1)</script>"
    chart = Chart(name="x", title="", caption="", figure=figure([{"type": "bar", "x": [1], "y": [name]}]))
    assert "<" not in chart.json
    assert json.loads(chart.json)["data"][0]["y"] == [name]


@pytest.mark.parametrize("trials", [TRIALS[:1], [trial(0, 0.5, reports={1: 0.5}), trial(1, 0.6, reports={1: 0.6})]])
def test_epochs_and_trials_are_whole_numbers_on_their_axes_however_few_there_are(trials: list[FrozenTrial]) -> None:
    history, last = read.history(trials, StudyDirection.MAXIMIZE), max(len(trials[0].intermediate_values), 1)
    charts = (
        (work_charts.learning_curves(trials, None, "val_accuracy", maximize=True), last),
        (work_charts.best_curves(trials, "val_accuracy", maximize=True), last),
        (search_charts.best_by_trials(history, "val_accuracy", maximize=True), len(trials)),
        (model_charts.curves("loss", {7: _epochs(last)}, {8: _epochs(last)}, name="loss"), last),
    )
    for chart, whole in charts:
        assert chart.figure is not None
        axis = chart.figure.layout.xaxis
        assert (axis.tickvals, axis.range) == ((1,), (0, 2)) if whole == 1 else (axis.dtick == 1), chart.name


def _epochs(number: int) -> list[EpochFigures]:
    return [
        EpochFigures(number=epoch, train_loss=1 / epoch, train_accuracy=0.5, val_loss=1 / epoch, val_accuracy=0.5)
        for epoch in range(1, number + 1)
    ]


def test_many_epochs_have_the_ticks_that_fit() -> None:
    drawn = work_charts.learning_curves(
        [trial(0, 0.5, reports=dict.fromkeys(range(1, 101), 0.5))], None, "val_accuracy", maximize=True
    ).figure
    assert drawn is not None
    assert (drawn.layout.xaxis.dtick, drawn.layout.xaxis.tickvals) == (None, None)


def test_a_trial_of_a_single_epoch_is_a_dot_for_a_line_of_one_point_is_not_seen() -> None:
    ended = [trial(n, state=TrialState.PRUNED, reports=reports) for n, reports in enumerate([{1: 0.2}, {}, {1: 0.3}])]
    longer = trial(3, state=TrialState.PRUNED, reports={1: 0.3, 2: 0.4})
    (dots,) = _drawn(work_charts.learning_curves(ended, None, "val_accuracy", maximize=True))
    assert (dots.mode, dots.showlegend, dots.x[~np.isnan(dots.y)].tolist()) == ("markers", True, [1, 1])
    line, dots = _drawn(work_charts.learning_curves([*ended, longer], None, "val_accuracy", maximize=True))
    assert (line.mode, set(line.customdata)) == ("lines", {3})
    assert (dots.mode, set(dots.customdata)) == ("markers", {0, 2})
    assert dots.marker.color == line.line.color
    assert (dots.legendgroup, dots.showlegend) == (line.legendgroup, False)


def _drawn(chart: Chart) -> Sequence[Any]:
    assert chart.figure is not None
    return tuple(chart.figure.data)


def test_the_front_is_a_step_line_and_tells_the_settings_of_its_trials() -> None:
    sized = [searched(n, 0.5 + n / 10, 1e-3, n, 32) for n in (1, 2, 3)]
    for each, size in zip(sized, (100, 5000, 4000), strict=True):
        each.user_attrs["num_parameters"] = size
    dots, line = _drawn(cost_charts.size_and_value(sized[::-1], "val_accuracy", maximize=True, most=2))
    assert (dots.name, line.name, line.line.shape) == ("complete trial", "Pareto front", "hv")
    assert (dots.customdata.tolist(), line.customdata.tolist()) == ([3, 2], [1, 3])
    assert line.text[1] == "rate 0.001<br>depth 3<br>width 32"
    assert dots.text == (line.text[1], "rate 0.001<br>depth 2<br>width 32")
    for trace in (dots, line):
        assert "trial %{customdata}" in trace.hovertemplate
        assert "%{text}" in trace.hovertemplate
    bare, line = _drawn(cost_charts.size_and_value(sized, "val_loss", maximize=False, most=2, described=False))
    assert line.text
    assert bare.text is None
    assert "%{text}" not in bare.hovertemplate


def test_the_chart_of_sizes_is_called_after_the_metric() -> None:
    sized = trial(0, 0.5, num_parameters=10)
    titles = [cost_charts.size_and_value([sized], m, maximize=True, most=1).title for m in ("val_accuracy", "val_loss")]
    assert titles == ["Accuracy against parameters", "Loss against parameters"]


def test_the_axis_of_a_single_value_is_narrow_around_it() -> None:
    sized = [trial(number, 0.5, num_parameters=10 + number) for number in range(2)]
    chart = cost_charts.size_and_value(sized, "val_accuracy", maximize=True, most=2)
    assert chart.figure is not None
    assert chart.figure.layout.yaxis.range == pytest.approx((0.45, 0.55))
    sized.append(trial(2, 0.6, num_parameters=12))
    chart = cost_charts.size_and_value(sized[::-1], "val_accuracy", maximize=True, most=3)
    assert chart.figure is not None
    assert chart.figure.layout.yaxis.range is None
