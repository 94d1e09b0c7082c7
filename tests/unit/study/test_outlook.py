"""What more trials may gain."""

import pytest

from kmnist_search.study.forecast import Forecast
from kmnist_search.study.outlook import expected_gain, outlook

A_MINUTE_EACH = Forecast(trial_seconds=60.0, lengths=(60.0,), remaining=())


@pytest.mark.parametrize("exponent", [0.1, 0.5, 1.0])
def test_an_error_that_falls_as_a_power_of_the_trials_goes_on_falling_so(exponent: float) -> None:
    errors = [0.2 * trials**-exponent for trials in range(1, 101)]
    assert expected_gain(errors, 100) == pytest.approx(errors[-1] - 0.2 * 200**-exponent, rel=1e-3)


def test_nothing_is_expected_where_nothing_became_better() -> None:
    assert expected_gain([0.1] * 50, 100) == 0.0


def test_more_trials_never_gain_more_than_the_whole_error() -> None:
    assert 0 < expected_gain([*[0.5] * 20, *[0.001] * 20], 10**9) <= 0.001
    assert expected_gain([0.1, *[0.0] * 40], 10) == 0.0


def test_the_next_hour_has_as_many_trials_as_the_forecast_says() -> None:
    bests = [1 - 0.2 / (1 + number) for number in range(40)]
    found = outlook(bests, A_MINUTE_EACH, running=2, maximizes=True)
    assert found is not None
    assert found.trials == 120
    assert found.gain == pytest.approx(expected_gain([1 - best for best in bests], 120))
    losses = outlook([1 - best for best in bests], A_MINUTE_EACH, running=2, maximizes=False)
    assert losses is not None
    assert losses.gain == pytest.approx(found.gain)


def test_a_few_trials_tell_nothing_yet() -> None:
    assert outlook([0.5] * 11, A_MINUTE_EACH, running=1, maximizes=True) is None
    assert outlook([0.5] * 12, None, running=1, maximizes=True) is None
    assert outlook([0.5] * 39, A_MINUTE_EACH, running=2, maximizes=True) is None  # of 120 more
    assert outlook([0.5] * 40, A_MINUTE_EACH, running=2, maximizes=True) is not None
