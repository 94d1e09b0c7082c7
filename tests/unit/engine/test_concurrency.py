"""Tests of engine/concurrency.py: the number of trainings at once, found on a simulated device."""

import random
from collections.abc import Callable

import pytest

from kmnist_search.config import TrainConfig, TrialConfig, trial_config
from kmnist_search.engine.concurrency import MAX_CONCURRENT, Concurrency, epoch_cost

#: The throughput of a device, as a multiple of that of one training alone, by the number of trainings.
Throughput = Callable[[int], float]


def simulate(
    concurrency: Concurrency, throughput: Throughput, *, seconds: float = 3000, noise: float = 0.0, seed: int = 0
) -> list[int]:
    """Let a device train for a while; return the limit after each epoch.

    The epochs of a training take 1 s when it is alone; a noisy one differs by as much from what its cost promises.
    """
    chance = random.Random(seed)
    now, limits = 0.0, []
    left: list[float] = []  # for each running epoch, seconds it would still take alone
    begun: list[float] = []
    while now < seconds:
        while len(left) < concurrency.limit:
            left.append(1 + chance.gauss(0, noise))
            begun.append(now)
        speed = throughput(len(left)) / len(left)
        first = min(range(len(left)), key=left.__getitem__)
        passed = max(left[first], 0.0) / speed
        now += passed
        left = [epoch - passed * speed for epoch in left]
        active = len(left)
        left.pop(first)
        concurrency.epoch_done(1.0, seconds=now - begun.pop(first), active=active, now=now)
        limits.append(concurrency.limit)
    return limits


def saturating(best: int) -> Throughput:
    return lambda trainings: float(min(trainings, best))


@pytest.mark.parametrize("best", [2, 3, 5, 8, 12])
def test_trainings_are_added_until_the_throughput_no_longer_grows(best: int) -> None:
    limits = simulate(Concurrency(start=2, maximum=MAX_CONCURRENT), saturating(best))
    assert limits[0] == 2
    assert max(limits) == best + 1
    assert limits[-1] == best


def test_a_device_that_saturates_gently_is_not_overcrowded() -> None:
    def throughput(trainings: int) -> float:
        return 3.3 * (1 - 0.7**trainings)  # each further training adds 0.7 of what the one before added

    limits = simulate(Concurrency(start=2, maximum=MAX_CONCURRENT), throughput)
    growth = [throughput(number + 1) / throughput(number) for number in range(1, MAX_CONCURRENT)]
    best = next(number for number, factor in enumerate(growth, 1) if factor < 1.05)
    assert abs(limits[-1] - best) <= 1


def test_a_device_that_always_gains_gets_all_trainings_and_no_more() -> None:
    limits = simulate(Concurrency(start=2, maximum=MAX_CONCURRENT), lambda trainings: trainings**2.0, seconds=3_000)
    assert max(limits) == limits[-1] == MAX_CONCURRENT


@pytest.mark.parametrize("seed", range(20))
def test_noise_moves_the_number_by_little_and_it_settles_for_good(seed: int) -> None:
    limits = simulate(Concurrency(start=2, maximum=MAX_CONCURRENT), saturating(4), noise=0.15, seed=seed)
    assert 3 <= limits[-1] <= 6
    changes = [number for number in range(1, len(limits)) if limits[number] != limits[number - 1]]
    assert len(changes) <= MAX_CONCURRENT
    assert set(limits[len(limits) // 2 :]) == {limits[-1]}


def test_after_memory_ran_out_one_trial_less_runs_for_good() -> None:
    concurrency = Concurrency(start=2, maximum=MAX_CONCURRENT)
    assert simulate(concurrency, saturating(8), seconds=60)[-1] > 3
    concurrency.out_of_memory(3)
    assert set(simulate(concurrency, saturating(8))) == {2}
    concurrency.out_of_memory(2)
    assert concurrency.limit == 1
    concurrency.out_of_memory(1)
    assert concurrency.limit == 1


def test_memory_that_ran_out_above_the_trainings_in_use_only_bounds_them() -> None:
    concurrency = Concurrency(start=2, maximum=MAX_CONCURRENT)
    concurrency.out_of_memory(6)
    assert concurrency.limit == 2
    assert max(simulate(concurrency, saturating(12))) == concurrency.limit == 5


def test_nothing_is_measured_before_all_trainings_are_at_work() -> None:
    concurrency = Concurrency(start=2, maximum=MAX_CONCURRENT)
    for second in range(1000):
        concurrency.epoch_done(1.0, seconds=1.0, active=1, now=float(second))
    assert concurrency.limit == 2


def test_a_number_that_was_asked_for_stays() -> None:
    assert set(simulate(Concurrency.fixed(3), saturating(12))) == {3}


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
