"""The final metric that is expected of trials that paused or ended early."""

import math

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from kmnist_search.study.extrapolation import log_errors


def _trial(*values: float) -> FrozenTrial:
    reports = dict(enumerate(values, start=1))
    return optuna.create_trial(state=TrialState.PRUNED, params={}, intermediate_values=reports)


def test_a_trial_gains_what_half_of_the_others_gained_from_its_epoch_on() -> None:
    trials = [_trial(0.8, 0.9, 0.95), _trial(0.8, 0.9, 0.95), _trial(0.6, 0.9, 0.95), _trial(0.9), _trial(0.7, 0.8)]
    found = [1 - math.exp(each) for each in log_errors(trials, epochs=3, maximizes=True)]
    # From the first epoch to the second, and to the third, half of the trials halved their error.
    assert found == pytest.approx([0.95, 0.95, 0.95, 0.975, 0.9])


def test_a_loss_is_extrapolated_as_an_error_is() -> None:
    assert log_errors([_trial(0.8, 0.4), _trial(0.6)], epochs=2, maximizes=False) == pytest.approx(
        [math.log(0.4), math.log(0.3)]
    )


def test_where_no_trial_went_further_nothing_is_gained() -> None:
    assert log_errors([_trial(0.8), _trial(0.9)], epochs=9, maximizes=True) == pytest.approx(
        [math.log(0.2), math.log(0.1)]
    )


@pytest.mark.parametrize("diverged", [_trial(), _trial(math.nan), _trial(math.nan, math.inf)])
def test_a_trial_that_diverged_is_as_bad_as_the_worst(diverged: FrozenTrial) -> None:
    found = log_errors([_trial(0.5, 0.6), _trial(0.5, 0.8), diverged], epochs=2, maximizes=False)
    assert found[2] == pytest.approx(math.log(0.8))


def test_where_all_trials_diverged_all_are_equally_bad() -> None:
    assert log_errors([_trial(math.nan), _trial()], epochs=2, maximizes=True).tolist() == [0.0, 0.0]


def test_no_error_at_all_is_a_number_all_the_same() -> None:
    assert math.isfinite(log_errors([_trial(1.0)], epochs=1, maximizes=True)[0])


def test_epochs_beyond_those_of_a_whole_training_are_ignored() -> None:
    assert log_errors([_trial(0.5, 0.9)], epochs=1, maximizes=True) == pytest.approx([math.log(0.5)])
