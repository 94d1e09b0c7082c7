"""The number of trials, found on a simulated device."""

import random
from collections.abc import Callable

import pytest

from kmnist_search.config import TrainConfig, TrialConfig, trial_config
from kmnist_search.engine.packing import MOST_LANES, Packing, epoch_cost

#: The pace of a device, as a multiple of that of one training alone, by the trainings at work.
Stepping = Callable[[int], float]


def simulate(
    packing: Packing, pace: Stepping, *, seconds: float = 3000, noise: float = 0.0, seed: int = 0
) -> list[int]:
    """Let a device train for a while; return how many trials were used, epoch by epoch.

    The epochs of a training take 1 s when it is alone; a noisy one differs by as much from what its cost promises.
    """
    chance = random.Random(seed)
    now, trial_runs = 0.0, []
    left: list[float] = []  # of the epochs at hand, seconds that they would take alone
    begun: list[float] = []
    while now < seconds:
        while len(left) < packing.trial_runs:
            left.append(1 + chance.gauss(0, noise))
            begun.append(now)
        speed = pace(len(left)) / len(left)
        first = min(range(len(left)), key=left.__getitem__)
        passed = max(left[first], 0.0) / speed
        now += passed
        left = [epoch - passed * speed for epoch in left]
        at_work = len(left)
        left.pop(first)
        packing.epoch_done(1.0, seconds=now - begun.pop(first), at_work=at_work, now=now)
        trial_runs.append(packing.trial_runs)
    return trial_runs


def saturating(best: int) -> Stepping:
    return lambda trial_runs: float(min(trial_runs, best))


@pytest.mark.parametrize("best", [2, 3, 5, 8, 12])
def test_lanes_are_added_until_the_pace_no_longer_grows(best: int) -> None:
    trial_runs = simulate(Packing(start=2, most=MOST_LANES), saturating(best))
    assert trial_runs[0] == 2
    assert max(trial_runs) == best + 1
    assert trial_runs[-1] == best


def test_a_device_that_saturates_gently_is_not_overcrowded() -> None:
    def pace(trial_runs: int) -> float:
        return 3.3 * (1 - 0.7**trial_runs)  # each trial more brings 0.7 of what the one before brought

    trial_runs = simulate(Packing(start=2, most=MOST_LANES), pace)
    growth = [pace(number + 1) / pace(number) for number in range(1, MOST_LANES)]
    best = next(number for number, factor in enumerate(growth, 1) if factor < 1.05)
    assert abs(trial_runs[-1] - best) <= 1


def test_a_device_that_always_gains_gets_all_lanes_and_no_more() -> None:
    trial_runs = simulate(Packing(start=2, most=MOST_LANES), lambda trial_runs: trial_runs**2.0, seconds=10_000)
    assert max(trial_runs) == trial_runs[-1] == MOST_LANES


@pytest.mark.parametrize("seed", range(20))
def test_noise_moves_the_number_by_little_and_it_settles_for_good(seed: int) -> None:
    trial_runs = simulate(Packing(start=2, most=MOST_LANES), saturating(4), noise=0.15, seed=seed)
    assert 3 <= trial_runs[-1] <= 6
    changes = [number for number in range(1, len(trial_runs)) if trial_runs[number] != trial_runs[number - 1]]
    assert len(changes) <= MOST_LANES
    assert set(trial_runs[len(trial_runs) // 2 :]) == {trial_runs[-1]}


def test_memory_that_ran_out_takes_a_lane_away_for_ever() -> None:
    packing = Packing(start=2, most=MOST_LANES)
    assert simulate(packing, saturating(8), seconds=60)[-1] > 3
    packing.ran_out_of_memory(3)
    assert set(simulate(packing, saturating(8))) == {2}
    packing.ran_out_of_memory(2)
    assert packing.trial_runs == 1
    packing.ran_out_of_memory(1)
    assert packing.trial_runs == 1


def test_memory_that_ran_out_above_the_lanes_in_use_only_bounds_them() -> None:
    packing = Packing(start=2, most=MOST_LANES)
    packing.ran_out_of_memory(6)
    assert packing.trial_runs == 2
    assert max(simulate(packing, saturating(12))) == packing.trial_runs == 5


def test_nothing_is_measured_before_all_lanes_are_at_work() -> None:
    packing = Packing(start=2, most=MOST_LANES)
    for second in range(1000):
        packing.epoch_done(1.0, seconds=1.0, at_work=1, now=float(second))
    assert packing.trial_runs == 2


def test_a_number_that_was_asked_for_stays() -> None:
    assert set(simulate(Packing.fixed(3), saturating(12))) == {3}


def _config(**hyperparameters: object) -> TrialConfig:
    return trial_config(hyperparameters, TrainConfig(epochs=1))


def test_small_batches_cost_more_for_their_steps() -> None:
    costs = [epoch_cost(_config(batch_size=2**power), 2**15) for power in range(5, 12)]
    assert costs == sorted(costs, reverse=True)
    assert epoch_cost(_config(dim=512), 2**15) > epoch_cost(_config(dim=256), 2**15)


def test_the_cost_predicts_what_two_nets_took_on_a_gpu() -> None:
    small = _config(patch_size=4, dim=256, token_width=128, channel_width=512, num_blocks=4, batch_size=256)
    large = _config(patch_size=7, dim=384, token_width=64, channel_width=768, num_blocks=6, batch_size=512)
    measured = 0.446 / 0.347  # s an epoch of 60,000 images on an H200, bfloat16, CUDA graphs, one at a time
    assert epoch_cost(small, 60_000) / epoch_cost(large, 60_000) == pytest.approx(measured, rel=0.05)
