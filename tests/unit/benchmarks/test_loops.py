"""Tests of tests/benchmarks/loops.py: the loops train, and one that cannot run is reported."""

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from kmnist_search.bench.nets import noise
from kmnist_search.bench.pace import Pace
from kmnist_search.config import TrainConfig, trial_config
from kmnist_search.data.search_data import SearchData
from tests.benchmarks import loops

CPU = torch.device("cpu")
NET = trial_config(
    {
        "patch_size": 14,
        "dim": 8,
        "token_width": 4,
        "channel_width": 8,
        "num_blocks": 1,
        "batch_size": 16,
        "shift": 2.0,
        "rotate": 5.0,
        "scale": 0.1,
        "shear": 5.0,
    },
    TrainConfig(epochs=100_000),
)


@pytest.fixture(scope="module")
def data() -> SearchData:
    return noise()


def test_steps_are_timed_for_as_long_as_asked_and_the_set_up_apart() -> None:
    def make_step() -> Callable[[], int]:
        time.sleep(0.05)

        def step() -> int:
            time.sleep(0.01)
            return 7

        return step

    pace = loops.time_steps(make_step, device=CPU, seconds=0.1, warm_up_steps=3)
    assert 0.08 <= pace.setup_seconds < 1
    assert 7 / 0.1 < pace.images_per_second <= 7 / 0.01


def test_one_step_is_timed_even_if_it_takes_longer_than_asked() -> None:
    def step() -> int:
        time.sleep(0.02)
        return 5

    pace = loops.time_steps(lambda: step, device=CPU, seconds=0.0, warm_up_steps=0)
    assert 0 < pace.images_per_second <= 5 / 0.02


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_dataloader_loop_trains(data: SearchData, num_workers: int) -> None:
    pace = loops.dataloader_loop(NET, data, CPU, seconds=0.0, num_workers=num_workers)
    assert pace.images_per_second > 0
    assert pace.setup_seconds > 0


def test_loops_are_set_beside_ours_and_one_that_cannot_run_is_said_to_be_missing(
    data: SearchData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("there is no C++ compiler\nmore of it")

    monkeypatch.setattr(loops, "compiled_loop", broken)
    all_loops = loops._loops

    def two_loops(*given: Any) -> dict[str, Callable[[], Pace]]:
        return {name: loop for name, loop in all_loops(*given).items() if not name.startswith("DataLoader")}

    monkeypatch.setattr(loops, "_loops", two_loops)
    ours, eager, missing = loops.compare(NET, data, CPU, seconds=0.05)
    assert (ours.name, ours.ratio, eager.name) == ("ours", 1.0, "eager loop")
    assert (eager.ratio or 0) > 0
    assert missing.missing == "RuntimeError: there is no C++ compiler"
    assert "there is no C++ compiler" in loops.line(missing)
    assert "images/s" in loops.line(eager)
