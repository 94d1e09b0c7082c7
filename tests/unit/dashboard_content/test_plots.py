"""The plots that the dashboard is given: what is in them, how they look there, and how large they may become."""

import json
import re
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from kmnist_search.charts import cost_charts, trials as read, work_charts
from kmnist_search.dashboard_content.plots import plots
from kmnist_search.study.ranking import front
from tests.unit.charts.test_trials import BEGUN, trial
from tests.unit.dashboard_content.test_note import snapshot

SIZED = [
    trial(0, 0.90, num_parameters=1000, seconds=3.0, reports={1: 0.5, 2: 0.9}),
    trial(1, 0.95, num_parameters=9000, seconds=5.0, reports={1: 0.6, 2: 0.95}),
    trial(2, 0.94, num_parameters=9500, seconds=4.0, reports={1: 0.6, 2: 0.94}),
    trial(3, state=TrialState.PRUNED, num_parameters=10, seconds=1.0, reports={1: 0.1}),
    trial(4, state=TrialState.FAIL, seconds=0.5),
]
RANKED = [SIZED[1], SIZED[2], SIZED[0]]


def test_on_the_front_are_the_trials_than_which_no_smaller_one_is_as_good() -> None:
    assert [each.number for each in front(RANKED)] == [0, 1]
    drawn = cost_charts.size_and_value(RANKED, "val_accuracy", maximize=True, most=10).figure
    assert drawn is not None
    dots, line = drawn.data
    assert dots.customdata.tolist() == [1, 2, 0]
    assert list(line.x) == [1000, 9000]
    assert list(line.y) == pytest.approx([0.90, 0.95])  # an older numpy keeps them as float32


def test_of_two_trials_as_good_the_smaller_is_on_the_front() -> None:
    twin = trial(9, 0.95, num_parameters=8000)
    assert [each.number for each in front([SIZED[1], twin, SIZED[0]])] == [0, 9]


def test_time_is_told_apart_by_how_trials_ended_beside_what_pruning_saved() -> None:
    assert read.seconds_by_outcome(SIZED) == {"complete": (3, 12.0), "pruned": (1, 1.0), "failed": (1, 0.5)}
    drawn = cost_charts.spent(read.seconds_by_outcome(SIZED), read.saved(SIZED, 4), "training seconds").figure
    assert drawn is not None
    assert list(drawn.data[0].y) == [12.0, 1.0, 0.5, 3.0]


def test_the_best_trial_has_the_thick_line_among_the_best() -> None:
    drawn = work_charts.best_curves(RANKED, "val_accuracy", maximize=True).figure
    assert drawn is not None
    assert [trace.name for trace in drawn.data] == ["trial 0", "trial 2", "trial 1"]
    assert drawn.data[-1].line.width > drawn.data[0].line.width
    assert drawn.data[-1].y.tolist() == pytest.approx([0.6, 0.95])


def test_a_thinned_history_keeps_the_best_trials_and_every_step_of_the_best_so_far() -> None:
    values = [0.1, 0.5, 0.3, None, 0.6, 0.55, 0.2, None]
    trials = [trial(n, v, TrialState.PRUNED if v is None else TrialState.COMPLETE) for n, v in enumerate(values)]
    whole = read.history(trials, StudyDirection.MAXIMIZE)
    thin = read.thinned(whole, 2, StudyDirection.MAXIMIZE)
    assert thin.numbers.tolist() == [0, 1, 4, 5, 7]  # 0, 1 and 4 bettered the best, 4 and 5 are the best, 7 is the last
    assert thin.best.tolist() == [0.1, 0.5, 0.6, 0.6, 0.6]
    assert read.thinned(whole, 8, StudyDirection.MAXIMIZE) is whole


def test_plots_have_titles_and_plain_colours_and_fill_their_box() -> None:
    found = plots(snapshot(SIZED))
    assert list(found) == [
        f"kmnist-search-{name}" for name in ("best-by-seconds", "size", "best-curves", "spent")
    ]  # no attempt is known, so there is no timeline
    for plot in found.values():
        text = plot.to_json()
        assert "var(" not in text
        layout = json.loads(text)["layout"]
        assert layout["title"]["text"]
        assert "height" not in layout


@pytest.mark.parametrize("background", ["#ffffff", "#1e1e1e"])
def test_words_and_lines_can_be_read_on_both_backgrounds_of_the_dashboard(background: str) -> None:
    layout = json.loads(plots(snapshot(SIZED))["kmnist-search-size"].to_json())["layout"]
    assert layout["template"]["layout"]["paper_bgcolor"] == "rgba(0,0,0,0)"
    assert _contrast(layout["template"]["layout"]["font"]["color"], background) > 3.5


def _contrast(colour: str, background: str) -> float:
    """The contrast by WCAG 2."""
    lights = []
    for each in (colour, background):
        parts = np.array([int(part, 16) / 255 for part in re.findall(r"[0-9a-f]{2}", each)])
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        lights.append(float(linear @ [0.2126, 0.7152, 0.0722]) + 0.05)
    return max(lights) / min(lights)


def test_before_anything_is_complete_there_is_nothing_but_the_timeline() -> None:
    attempts = [{"host": "node7", "pid": 1, "began_at": "2026-11-20T00:00:00+00:00"}]
    assert list(plots(snapshot([trial(0, state=TrialState.RUNNING, attempts=attempts)]))) == ["kmnist-search-timeline"]


def test_the_plots_of_five_thousand_trials_stay_small() -> None:
    trials = [_many(number) for number in range(5000)]
    size = sum(len(plot.to_json()) for plot in plots(snapshot(trials)).values())
    assert size < 100_000


def _many(number: int) -> FrozenTrial:
    state = TrialState.COMPLETE if number % 2 else TrialState.PRUNED
    began = BEGUN + timedelta(seconds=10 * number)
    attempt: dict[str, Any] = {
        "host": "node7",
        "pid": number % 8,
        "began_at": f"{began.isoformat()}+00:00",
        "ended_at": f"{(began + timedelta(seconds=60)).isoformat()}+00:00",
        "how": state.name.lower(),
    }
    value = 0.9 + 0.09 * (number * 0.618034 % 1) if number % 2 else None
    reports = {epoch: 0.1 * epoch for epoch in range(1, 6)}
    return trial(number, value, state, seconds=60.0, num_parameters=1000 + number, reports=reports, attempts=[attempt])
