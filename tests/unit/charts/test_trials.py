"""What a report reads off trials, against figures worked out by hand."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from kmnist_search.charts import trials as read
from kmnist_search.charts.importance import importances
from kmnist_search.study.ranking import duplicates

BEGUN = datetime(2026, 11, 20)
RATE = FloatDistribution(1e-4, 1e-2, log=True)


def trial(
    number: int,
    value: float | None = None,
    state: TrialState = TrialState.COMPLETE,
    *,
    ended: int | None = None,
    reports: dict[int, float] | None = None,
    params: dict[str, Any] | None = None,
    distributions: dict[str, BaseDistribution] | None = None,
    **attributes: Any,
) -> FrozenTrial:
    """A trial that ended `ended` seconds after the study began, by default in the order of the numbers."""
    over = BEGUN + timedelta(seconds=number if ended is None else ended) if state.is_finished() else None
    return FrozenTrial(
        number=number,
        trial_id=number,
        state=state,
        value=value,
        datetime_start=BEGUN,
        datetime_complete=over,
        params=params or {},
        distributions=distributions or {},
        user_attrs=attributes,
        system_attrs={},
        intermediate_values=reports or {},
    )


def test_the_best_so_far_follows_the_order_in_which_trials_ended() -> None:
    found = read.history(
        [
            trial(0, 0.5, ended=30, seconds=3.0),
            trial(1, state=TrialState.PRUNED, ended=10, seconds=1.0),
            trial(2, 0.7, ended=20, seconds=2.0),
            trial(3, 0.6, ended=40, seconds=4.0),
            trial(4, state=TrialState.RUNNING),
        ],
        StudyDirection.MAXIMIZE,
    )
    assert found.numbers.tolist() == [1, 2, 0, 3]
    assert np.isnan(found.best[0])
    assert found.best[1:].tolist() == [0.7, 0.7, 0.7]
    assert found.seconds.tolist() == [1, 3, 6, 10]


def test_of_losses_the_lowest_is_the_best_so_far() -> None:
    losses = [0.9, 0.4, 0.6, 0.1]
    found = read.history([trial(number, loss) for number, loss in enumerate(losses)], StudyDirection.MINIMIZE)
    assert found.best.tolist() == [0.9, 0.4, 0.4, 0.1]


def test_trials_of_unknown_time_add_nothing_and_are_counted() -> None:
    found = read.history([trial(0, 0.5), trial(1, 0.6, seconds=2.0)], StudyDirection.MAXIMIZE)
    assert found.seconds.tolist() == [0, 2]
    assert found.num_untimed == 1


def test_an_infinite_value_is_no_value() -> None:
    found = read.history([trial(0, float("inf")), trial(1, 0.6)], StudyDirection.MAXIMIZE)
    assert found.best[-1] == 0.6


def test_seconds_are_of_a_gpu_only_if_each_trial_ran_on_one() -> None:
    on_gpu, on_cpu = trial(0, 0.5, device="NVIDIA H200"), trial(1, 0.5, device="CPU, threads: 2")
    assert read.clock_name([on_gpu, trial(2)]) == "GPU-seconds"
    assert read.clock_name([on_gpu, on_cpu]) == "training seconds"
    assert read.clock_name([trial(2)]) == "training seconds"


def test_pruning_saved_the_seconds_an_epoch_times_the_epochs_not_run() -> None:
    pruned = TrialState.PRUNED
    found = read.saved(
        [
            trial(0, 0.5, seconds=100.0, reports=dict.fromkeys(range(1, 21), 0.5)),
            trial(1, state=pruned, seconds=10.0, reports={1: 0.1, 2: 0.2}),  # 5 s an epoch, 18 not run
            trial(2, state=pruned, seconds=4.0, reports={1: 0.1}),  # 4 s an epoch, 19 not run
            trial(3, state=pruned, seconds=7.0, reports={1: 0.1}, reason="diverged: the loss is not finite"),
            trial(4, state=pruned, reports={1: 0.1}),  # its time is not known
            trial(5, state=pruned, seconds=1.0),  # it reported nothing
        ],
        epochs=20,
    )
    assert found.num_trials == 2
    assert found.seconds == pytest.approx(5 * 18 + 4 * 19)


def test_failures_are_counted_by_reason_the_most_frequent_first() -> None:
    failed = TrialState.FAIL
    found = read.failures(
        [
            trial(0, state=failed, reason="ValueError: x"),
            trial(1, state=failed, reason="out of memory"),
            trial(2, 0.5, reason="not failed"),
            trial(3, state=failed, reason="out of memory"),
            trial(4, state=failed),
        ]
    )
    assert found == {"out of memory": [1, 3], "ValueError: x": [0], "not known": [4]}
    assert next(iter(found)) == "out of memory"


@pytest.mark.parametrize(
    ("how", "outcome"),
    [
        ("complete", "complete"),
        ("fail", "failed"),
        ("handed back: SIGTERM", "handed back"),
        ("its lease ran out (120 s)", "lost"),
        ("its process died", "lost"),
    ],
)
def test_an_attempt_has_a_worker_times_and_an_outcome(how: str, outcome: str) -> None:
    attempt = _attempt(how=how, ended_at="1970-01-01T00:00:05+00:00")
    (found,) = read.attempts([trial(3, 0.5, attempts=[attempt])], datetime.now(UTC))
    assert (found.worker, found.number, found.began, found.ended) == ("node 7", 3, 2000, 5000)
    assert found.outcome == outcome


def test_only_the_attempt_of_a_running_trial_lasts_until_now() -> None:
    now = datetime(1970, 1, 1, 0, 0, 9, tzinfo=UTC)
    (found,) = read.attempts([trial(0, state=TrialState.RUNNING, attempts=[_attempt()])], now)
    assert (found.ended, found.outcome) == (9000, "running")
    assert read.attempts([trial(0, 0.5, attempts=[_attempt()]), trial(1, 0.5)], now) == []


def _attempt(**more: Any) -> dict[str, Any]:
    return {"host": "node", "pid": 7, "began_at": "1970-01-01T00:00:02+00:00", **more}


def test_trials_of_the_same_configuration_are_marked_with_the_best_of_them() -> None:
    ranked = [
        trial(5, 0.9, config_digest="a"),
        trial(2, 0.8, config_digest="b"),
        trial(7, 0.7, config_digest="a"),
        trial(8, 0.6),
        trial(9, 0.5),
    ]
    assert duplicates(ranked) == {7: 5}
    assert duplicates(ranked[:2]) == {}


def test_hyperparameters_of_one_value_were_not_searched() -> None:
    spaces: dict[str, BaseDistribution] = {"rate": RATE, "always": CategoricalDistribution(["one"])}
    chosen = {"rate": 1e-3, "always": "one"}
    assert list(read.searched([trial(0, 0.5, params=chosen, distributions=spaces)])) == ["rate"]


def test_importance_finds_the_hyperparameter_that_decides() -> None:
    spaces: dict[str, BaseDistribution] = {"rate": RATE, "idle": FloatDistribution(0, 1)}
    chance = np.random.default_rng(0)
    done = []
    for number in range(60):
        rate = float(10 ** chance.uniform(-4, -2))
        chosen = {"rate": rate, "idle": float(chance.uniform())}
        done.append(trial(number, -abs(np.log10(rate) + 3), params=chosen, distributions=spaces))
    found = importances(done, StudyDirection.MAXIMIZE)
    assert found.shares["rate"] > 0.8
    assert sum(found.shares.values()) == pytest.approx(1)
    assert "60 complete trials" in found.note


def test_too_few_trials_or_equal_ones_have_no_importance_and_a_reason() -> None:
    spaces: dict[str, BaseDistribution] = {"rate": RATE}
    equal = [trial(number, 0.5, params={"rate": 1e-3}, distributions=spaces) for number in range(12)]
    few, same = importances(equal[:1], StudyDirection.MAXIMIZE), importances(equal, StudyDirection.MAXIMIZE)
    assert few.note == "Importance needs at least 2 complete trials; there is 1."
    assert importances([], StudyDirection.MAXIMIZE).note == few.note.replace("1", "none")
    assert same.note == "All complete trials have the same value, so no hyperparameter made a difference."
    assert not few.shares
    assert not same.shares


def test_a_hint_from_few_trials_is_called_one() -> None:
    spaces: dict[str, BaseDistribution] = {"rate": RATE}
    done = [trial(n, n / 20, params={"rate": 1e-4 * (n + 1)}, distributions=spaces) for n in range(20)]
    assert "From so few trials it is a hint" in importances(done, StudyDirection.MAXIMIZE).note
    assert "From the 10 complete trials" in (note := importances(done[:10], StudyDirection.MAXIMIZE).note)
    assert "That is one trial, so this may well be chance" in note


def test_trials_that_disagree_on_their_hyperparameters_have_importances_without_a_warning(
    recwarn: pytest.WarningsRecorder,
) -> None:
    done = [
        trial(n, n / 20, params={"width": n}, distributions={"width": CategoricalDistribution([n, 99])})
        for n in range(20)
    ]
    found = importances([*done, trial(20, 0.5)], StudyDirection.MAXIMIZE)
    assert found.note
    assert len(recwarn) == 0
