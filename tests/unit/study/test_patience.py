"""Tests of study/patience.py: what counts as a new best, and how noisy equal trainings are."""

from datetime import datetime, timedelta

import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from kmnist_search.database.trial_writer import PAUSED_KEY
from kmnist_search.study.patience import noise_of, trials_since_best


def trials(*found: float | None, params: list[float] | None = None) -> list[FrozenTrial]:
    """Return trials that ended one after the other; None is a pruned one."""
    made = []
    for number, value in enumerate(found):
        trial = create_trial(
            state=TrialState.PRUNED if value is None else TrialState.COMPLETE,
            value=value,
            params={"x": (params or range(len(found)))[number]},
            distributions={"x": FloatDistribution(0, 100)},
        )
        trial.number, trial.datetime_complete = number, datetime(2026, 1, 1) + timedelta(minutes=number)
        made.append(trial)
    return made


def test_before_the_first_complete_trial_nothing_has_gone_by() -> None:
    assert trials_since_best([], maximizes=True) == 0
    assert trials_since_best(trials(None, None), maximizes=True) == 0


def test_pruned_and_worse_trials_count_since_the_last_best() -> None:
    assert trials_since_best(trials(0.5, None, 0.4), maximizes=True) == 2
    assert trials_since_best(trials(0.5, None, 0.4, 0.6), maximizes=True) == 0
    assert trials_since_best(trials(0.5, None, 0.4, 0.6, 0.6), maximizes=True) == 1
    assert trials_since_best(trials(0.5, 0.4, 0.6), maximizes=False) == 1


def test_a_paused_trial_does_not_count_because_it_may_resume() -> None:
    waits = trials(0.5, None, None)
    waits[1].system_attrs = {PAUSED_KEY: 3}
    assert trials_since_best(waits, maximizes=True) == 1


def test_the_order_is_that_of_the_ends() -> None:
    late_best = trials(0.9, 0.5)
    late_best[0].datetime_complete = datetime(2027, 1, 1)
    assert trials_since_best(late_best, maximizes=True) == 0


def test_noise_is_known_where_configurations_repeat() -> None:
    assert noise_of(trials(0.5, 0.6)) is None
    assert noise_of(trials(0.5, 0.7, params=[1, 1])) == pytest.approx(0.1 * 2**0.5)
    pooled = noise_of(trials(0.5, 0.7, 0.1, 0.1, 0.9, params=[1, 1, 2, 2, 3]))
    assert pooled == pytest.approx(0.1)


def test_what_is_better_by_less_than_the_noise_is_no_new_best() -> None:
    repeated = trials(0.5, 0.7, 0.75, params=[1, 1, 2])
    assert trials_since_best(repeated, maximizes=True) == 1
    repeated = trials(0.5, 0.7, 0.9, params=[1, 1, 2])
    assert trials_since_best(repeated, maximizes=True) == 0
