"""What is said of how long a study still takes: right on the mean, though most trials are pruned and workers change."""

import heapq
import random
from collections.abc import Callable
from statistics import median

import pytest

from kmnist_search.study.forecast import MIN_TRIALS, EndedTrial, RunningTrial, TimedTraining, forecast, forecast_of_plan


def _after(*lengths: float) -> list[EndedTrial]:
    """Trials one after the other, the last of which ends at 0."""
    ended, at = [], 0.0
    for length in reversed(lengths):
        ended.append(EndedTrial(began=at - length, ended=at))
        at -= length
    return ended


def test_without_a_basis_nothing_is_promised() -> None:
    assert forecast([], [RunningTrial(began=0.0, share=None)], now=50.0) is None
    assert forecast(_after(*[1.0] * (MIN_TRIALS - 1)), [], now=0.0) is None
    assert forecast(_after(0.0, 0.0, 0.0), [], now=0.0) is None


def test_a_study_that_is_over_takes_no_more_time() -> None:
    seen = forecast(_after(5.0, 5.0, 5.0), [], now=0.0)
    assert seen is not None
    assert seen.seconds_left(unfinished=0, running=0) == 0.0


def test_pruned_trials_count_as_they_come() -> None:
    seen = forecast(_after(10.0, 100.0, 10.0, 100.0), [], now=0.0)
    assert seen is not None
    assert seen.trial_seconds == pytest.approx(55.0)
    assert seen.seconds_left(unfinished=40, running=0) == pytest.approx(40 * 55.0)
    assert seen.trials_per_hour(running=2) == pytest.approx(2 * 3600 / 55)


def test_what_trials_at_work_have_done_is_taken_off() -> None:
    at_work = [RunningTrial(began=-90.0, share=0.9), RunningTrial(began=-40.0, share=0.4)]
    seen = forecast(_after(*[100.0] * 6), at_work, now=0.0)
    assert seen is not None
    assert seen.remaining == pytest.approx((10.0, 60.0))
    assert seen.seconds_left(unfinished=2, running=2) == pytest.approx(60.0)


def test_a_trial_that_outlived_all_others_is_expected_to_go_to_its_end() -> None:
    seen = forecast(_after(10.0, 10.0, 10.0), [RunningTrial(began=-50.0, share=0.5)], now=0.0)
    assert seen is not None
    assert seen.remaining == (50.0,)
    unknown = forecast(_after(10.0, 10.0, 10.0), [RunningTrial(began=-50.0, share=None)], now=0.0)
    assert unknown is not None
    assert unknown.remaining == (unknown.trial_seconds,)


def test_a_pause_of_all_workers_is_not_counted() -> None:
    yesterday = [EndedTrial(began=each.began - 80_000, ended=each.ended - 80_000) for each in _after(60.0, 60.0)]
    with_pause = forecast([*yesterday, *_after(60.0, 60.0)], [], now=0.0)
    assert with_pause is not None
    assert with_pause.trial_seconds == 60.0


def test_more_trials_at_work_than_were_known_are_taken_for_fresh_ones() -> None:
    seen = forecast(_after(60.0, 60.0, 60.0), [], now=0.0)
    assert seen is not None
    assert seen.seconds_left(unfinished=4, running=4) == 60.0


def test_only_the_last_trials_tell_the_pace() -> None:
    seen = forecast([*_after(*[10.0] * 60), EndedTrial(began=-9000.0, ended=-8000.0)], [], now=0.0)
    assert seen is not None
    assert seen.trial_seconds == pytest.approx(10.0)


def _simulated(chance: random.Random, slots_at: Callable[[float], int], *, trials: int) -> list[tuple[float, float]]:
    """Trials of which three in five are pruned early, by so many workers at each time: begin and end of each."""
    free, spans = [0.0] * slots_at(0.0), list[tuple[float, float]]()
    while len(spans) < trials:
        at = heapq.heappop(free)
        for _ in range(slots_at(at) - 1 - len(free)):
            heapq.heappush(free, at)
        length = 100 * chance.lognormvariate(0, 0.35) * chance.choice([1.0, 1.0, 0.27, 0.1, 0.1])
        spans.append((at, at + length))
        heapq.heappush(free, at + length)
    return spans


@pytest.mark.parametrize("over", [15, 50, 75])
@pytest.mark.parametrize(
    "slots_at", [lambda t: 1, lambda t: 4, lambda t: 16, lambda t: 3 if t < 60 else 8], ids=["1", "4", "16", "3 to 8"]
)
def test_in_studies_of_pruned_trials_it_is_neither_too_early_nor_too_late(
    slots_at: Callable[[float], int], over: int
) -> None:
    ratios = []
    for seed in range(60):
        spans = _simulated(random.Random(seed), slots_at, trials=100)
        now = sorted(end for _, end in spans)[over] + 0.001
        ended = [EndedTrial(began=begin, ended=end) for begin, end in spans if end <= now]
        at_work = [RunningTrial(began=begin, share=None) for begin, end in spans if begin <= now < end]
        seen = forecast(ended, at_work, now=now)
        assert seen is not None
        told = seen.seconds_left(unfinished=100 - len(ended), running=len(at_work))
        ratios.append(told / (max(end for _, end in spans) - now))
    assert median(ratios) == pytest.approx(1.0, abs=0.25)


def test_planned_trainings_take_as_long_an_epoch_as_those_that_have_begun() -> None:
    at_work = [TimedTraining(epochs=10, done=4, seconds=8.0), TimedTraining(epochs=10, done=0, seconds=1.0)]
    seen = forecast_of_plan([], at_work, [10, 30, 30])
    assert seen is not None
    assert seen.remaining == pytest.approx((12.0, 20.0))
    # The first worker takes the short one after 12 seconds, the second a long one after 20; the other long one is last.
    assert seen.seconds_left(unfinished=5, running=2) == pytest.approx(12 + 20 + 60)


def test_a_resumed_training_does_not_tell_how_long_an_epoch_takes() -> None:
    resumed = TimedTraining(epochs=10, done=9, seconds=None)
    assert forecast_of_plan([], [resumed], [10]) is None
    seen = forecast_of_plan([TimedTraining(epochs=10, done=10, seconds=20.0)], [resumed], [])
    assert seen is not None
    assert seen.seconds_left(unfinished=1, running=1) == pytest.approx(2.0)


def test_nothing_is_said_of_planned_trainings_before_the_first_epoch_is_over() -> None:
    assert forecast_of_plan([], [TimedTraining(epochs=10, done=0, seconds=5.0)], [10]) is None
