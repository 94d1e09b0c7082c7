"""On which devices a run works, in how many processes."""

from typing import Any

import pytest
import torch

from kmnist_search.config import TrainConfig, TrialConfig, trial_config
from kmnist_search.errors import ConfigError
from kmnist_search.run import placement
from kmnist_search.run.options import RunOptions
from kmnist_search.run.placement import Place, devices_of, places

SMALL = trial_config({"dim": 16, "patch_size": 14, "batch_size": 32}, TrainConfig(epochs=1))
#: 3.6 GFLOP a step.
MIDDLING = trial_config({"dim": 128, "patch_size": 7, "num_blocks": 3, "batch_size": 128}, TrainConfig(epochs=1))
LARGE = trial_config({"dim": 512, "num_blocks": 12, "batch_size": 4096}, TrainConfig(epochs=1))


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Eight cores, 64 GB, four GPUs."""
    monkeypatch.setattr(placement, "usable_cores", lambda: 8)
    monkeypatch.setattr(placement, "available_memory", lambda: 64 * 10**9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    return monkeypatch


def _cpu(
    config: TrialConfig, *, images: int = 50_000_000, workers: int | None = None, trials_left: int = 100
) -> list[Place]:
    return places(["cpu"], config, images=images, workers=workers, trials_left=trials_left)


def _devices(**options: Any) -> list[str]:
    return devices_of(RunOptions(storage_url="", **options))


def test_each_core_gets_a_process_unless_nets_are_so_large_that_memory_is_short() -> None:
    assert _cpu(SMALL) == [Place(device="cpu", cores=1)] * 8
    assert _cpu(MIDDLING) == [Place(device="cpu", cores=1)] * 8
    assert _cpu(LARGE) == [Place(device="cpu", cores=8)]


def test_there_are_no_more_processes_than_trials_work_or_memory_but_always_one(machine: pytest.MonkeyPatch) -> None:
    assert _cpu(SMALL, trials_left=3) == [Place(device="cpu", cores=2)] * 3
    assert _cpu(SMALL, trials_left=0) == [Place(device="cpu", cores=8)]
    assert len(_cpu(SMALL, images=5_000)) == 3  # half a million images in all
    machine.setattr(placement, "available_memory", lambda: 2_500_000_000)
    assert len(_cpu(SMALL, images=5_000_000)) == 2
    machine.setattr(placement, "available_memory", lambda: 100_000_000)
    assert len(_cpu(SMALL)) == 1


def test_as_many_processes_as_wished_share_the_cores() -> None:
    assert _cpu(LARGE, workers=4) == [Place(device="cpu", cores=2)] * 4
    assert _cpu(SMALL, workers=3) == [Place(device="cpu", cores=2)] * 3


def test_all_gpus_are_taken_or_those_that_are_named_with_a_process_each(machine: pytest.MonkeyPatch) -> None:
    assert _devices() == ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]
    assert _devices(gpus=[0, 2]) == ["cuda:0", "cuda:2"]
    assert _devices(device="cuda:1") == ["cuda:1"]
    assert _devices(device="cpu") == ["cpu"]
    taken = places(["cuda:0", "cuda:2"], SMALL, images=50_000, workers=8, trials_left=100)
    assert [place.device for place in taken] == ["cuda:0", "cuda:2"]
    machine.setattr(torch.cuda, "is_available", lambda: False)
    assert _devices() == ["cpu"]


def test_gpus_that_are_not_there_are_refused() -> None:
    with pytest.raises(ConfigError, match="--gpus: there is no GPU 4, 7; the 4 usable GPUs are numbered from 0"):
        _devices(gpus=[0, 4, 7])


def test_a_number_of_workers_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--workers 9 .*: this process may use 8 cores"):
        _devices(device="cpu", workers=9)
    with pytest.raises(ConfigError, match="--workers is for a CPU; on GPUs one process works on each"):
        devices_of(RunOptions(storage_url="", workers=2, device="cuda:0"), insist_on_workers=True)
    assert _devices(device="cpu", workers=8) == ["cpu"]
    assert _devices(device="cuda:0", workers=99) == ["cuda:0"]


def test_gpus_and_a_device_together_are_refused() -> None:
    with pytest.raises(ConfigError, match="--gpus and --device both name the devices"):
        RunOptions(storage_url="", gpus=[0], device="cpu")
