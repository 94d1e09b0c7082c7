"""Tests of engine/schedule.py: the learning rate, step by step, and plateaus as torch counts them."""

import itertools
import math

import pytest
import torch
from hypothesis import example, given, settings, strategies as st

from kmnist_search.config import ScheduleConfig
from kmnist_search.engine.schedule import lr_at, plateaus

PEAK = 0.5


def rates(
    config: ScheduleConfig, *, total_steps: int, steps_per_epoch: int = 10, losses: tuple[float, ...] = ()
) -> list[float]:
    return [
        lr_at(
            step,
            config,
            peak=PEAK,
            total_steps=total_steps,
            steps_per_epoch=steps_per_epoch,
            losses=losses,
        )
        for step in range(total_steps)
    ]


@pytest.mark.parametrize("schedule", ["cosine", "wsd", "step", "plateau", "constant"])
def test_the_warm_up_climbs_in_equal_steps_to_the_peak(schedule: str) -> None:
    config = ScheduleConfig.model_validate({"schedule": schedule, "warmup_share": 0.25})
    warmup = rates(config, total_steps=40)[:10]
    assert warmup == pytest.approx([PEAK * step / 10 for step in range(1, 11)])
    assert warmup[-1] == PEAK
    assert rates(config, total_steps=40)[10] == PEAK


@pytest.mark.parametrize("schedule", ["cosine", "wsd", "step", "plateau", "constant"])
def test_without_a_warm_up_the_first_step_is_at_the_peak(schedule: str) -> None:
    config = ScheduleConfig.model_validate({"schedule": schedule, "warmup_share": 0.0})
    assert rates(config, total_steps=40)[0] == PEAK


def test_a_warm_up_may_last_for_the_whole_training() -> None:
    assert rates(ScheduleConfig(warmup_share=0.99), total_steps=4) == pytest.approx([0.125, 0.25, 0.375, 0.5])


def test_the_cosine_falls_from_the_peak_through_its_half_towards_zero() -> None:
    fall = rates(ScheduleConfig(schedule="cosine", warmup_share=0.2), total_steps=100)[20:]
    assert fall[0] == PEAK
    assert fall[40] == pytest.approx(PEAK / 2)
    assert fall[20] == pytest.approx(PEAK * (1 + math.sqrt(0.5)) / 2)
    assert all(later < earlier for earlier, later in itertools.pairwise(fall))
    assert 0 < fall[-1] < PEAK * 1e-3


def test_the_warm_up_stable_decay_schedule_falls_in_equal_steps_in_the_last_fifth() -> None:
    after_warm_up = rates(ScheduleConfig(schedule="wsd", warmup_share=0.1), total_steps=50)[5:]
    assert after_warm_up[:35] == [PEAK] * 35
    assert after_warm_up[35:] == pytest.approx([PEAK * steps / 10 for steps in range(10, 0, -1)])


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_warm_up_stable_decay_schedule_of_a_very_short_training_is_above_zero(steps: int) -> None:
    assert all(0 < rate <= PEAK for rate in rates(ScheduleConfig(schedule="wsd"), total_steps=steps))


def test_the_cosine_would_reach_zero_at_the_end() -> None:
    end = lr_at(
        100,
        ScheduleConfig(schedule="cosine", warmup_share=0.1),
        peak=PEAK,
        total_steps=100,
        steps_per_epoch=10,
        losses=(),
    )
    assert end == pytest.approx(0, abs=1e-12)


def test_the_step_schedule_cuts_after_so_many_epochs() -> None:
    config = ScheduleConfig(schedule="step", step_epochs=2, decay_factor=0.5, warmup_share=0.0)
    expected = [PEAK] * 6 + [PEAK * 0.5] * 6 + [PEAK * 0.25] * 3
    assert rates(config, total_steps=15, steps_per_epoch=3) == pytest.approx(expected)


def test_the_plateau_schedule_cuts_once_for_each_rest_so_far() -> None:
    config = ScheduleConfig(schedule="plateau", plateau_patience=1, decay_factor=0.1, warmup_share=0.0)

    def rate_after(*losses: float) -> float:
        return rates(config, total_steps=1, losses=losses)[0]

    assert rate_after() == PEAK
    assert rate_after(1.0, 2.0) == PEAK
    assert rate_after(1.0, 2.0, 2.0) == pytest.approx(PEAK * 0.1)
    assert rate_after(1.0, 2.0, 2.0, 2.0) == pytest.approx(PEAK * 0.1)
    assert rate_after(1.0, 2.0, 2.0, 2.0, 2.0) == pytest.approx(PEAK * 0.01)
    assert rate_after(1.0, 2.0, 0.9, 2.0, 0.8) == PEAK


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
def test_only_the_plateau_schedule_looks_at_the_losses(schedule: str) -> None:
    config = ScheduleConfig.model_validate({"schedule": schedule, "plateau_patience": 0})
    assert rates(config, total_steps=30, losses=(1.0, 2.0, 3.0)) == rates(config, total_steps=30)


def test_the_constant_schedule_stays_at_the_peak() -> None:
    assert rates(ScheduleConfig(schedule="constant", warmup_share=0.1), total_steps=20)[2:] == [PEAK] * 18


def test_a_gain_below_the_threshold_is_no_gain() -> None:
    assert plateaus([1.0, 0.95, 0.91], patience=1, threshold=0.1) == 1
    assert plateaus([1.0, 0.95, 0.89], patience=1, threshold=0.1) == 0


@settings(max_examples=25, deadline=None)
@given(
    losses=st.lists(st.floats(0, 10) | st.sampled_from([0.9, 0.99, 1.0]), max_size=30),
    patience=st.integers(0, 4),
    threshold=st.sampled_from([0.0, 1e-4, 0.01, 0.1, 0.5]),
)
@example(losses=[1.0] * 30, patience=0, threshold=0.0)
@example(losses=[1.0, 0.9, 0.81, 0.729, 0.6561], patience=1, threshold=0.1)
def test_plateaus_are_those_of_torch(losses: list[float], patience: int, threshold: float) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="min", threshold_mode="rel", factor=0.5, patience=patience, threshold=threshold, eps=0.0
    )
    for number in range(len(losses) + 1):
        if number:
            scheduler.step(losses[number - 1])
        cuts = plateaus(losses[:number], patience=patience, threshold=threshold)
        assert optimizer.param_groups[0]["lr"] == 0.5**cuts
