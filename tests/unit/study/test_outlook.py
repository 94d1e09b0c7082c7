"""What more trials may gain."""

import pytest

from kmnist_search.study.forecast import Forecast
from kmnist_search.study.outlook import expected_gain, outlook

A_MINUTE_EACH = Forecast(trial_seconds=60.0, lengths=(60.0,), remaining=())


@pytest.mark.parametrize("doublings", [1, 2, 3])
@pytest.mark.parametrize("bests", [[*[0.30] * 50, *[0.22] * 50], [*[0.70] * 50, *[0.78] * 50]])
def test_each_doubling_gains_half_of_the_one_before(bests: list[float], doublings: int) -> None:
    gain = expected_gain(bests, 100 * 2**doublings - 100)
    assert gain == pytest.approx(sum(0.08 / 2**number for number in range(1, doublings + 1)))


def test_nothing_is_expected_where_nothing_became_better() -> None:
    assert expected_gain([0.1] * 50, 100) == 0.0


def test_the_next_hour_has_as_many_trials_as_the_forecast_says() -> None:
    bests = [1 - 0.2 / (1 + number) for number in range(40)]
    found = outlook(bests, A_MINUTE_EACH, running=2)
    assert found is not None
    assert found.trials == 120
    assert found.gain == pytest.approx(expected_gain(bests, 120))


def test_a_few_trials_tell_nothing_yet() -> None:
    assert outlook([0.5] * 11, A_MINUTE_EACH, running=1) is None
    assert outlook([0.5] * 12, None, running=1) is None
    assert outlook([0.5] * 39, A_MINUTE_EACH, running=2) is None  # of 120 more
    assert outlook([0.5] * 40, A_MINUTE_EACH, running=2) is not None
