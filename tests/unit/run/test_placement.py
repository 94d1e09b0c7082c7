"""On which devices a run works, in how many processes."""

import pytest
import torch

from kmnist_search.config import TrainConfig, TrialConfig, trial_config
from kmnist_search.errors import ConfigError
from kmnist_search.run import placement
from kmnist_search.run.placement import Place, check_workers, devices_of, places

SMALL = trial_config({"dim": 16, "patch_size": 14, "batch_size": 32}, TrainConfig(epochs=1))
#: Worth more than a thread: about 3.6 GFLOP a step.
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


def test_small_nets_get_a_process_a_core_and_large_ones_all_cores() -> None:
    assert _cpu(SMALL) == [Place(device="cpu", cores=1)] * 8
    assert _cpu(LARGE) == [Place(device="cpu", cores=8)]
    middling = _cpu(MIDDLING)
    assert 1 < len(middling) < 8
    assert len(middling) * middling[0].cores <= 8


def test_there_are_no_more_processes_than_trials_work_or_memory_but_always_one(machine: pytest.MonkeyPatch) -> None:
    assert _cpu(SMALL, trials_left=3) == [Place(device="cpu", cores=2)] * 3
    assert _cpu(SMALL, trials_left=0) == [Place(device="cpu", cores=8)]
    assert len(_cpu(SMALL, images=5_000)) == 3  # half a million images in all
    machine.setattr(placement, "available_memory", lambda: 2_500_000_000)
    assert len(_cpu(SMALL)) == 2
    machine.setattr(placement, "available_memory", lambda: 100_000_000)
    assert len(_cpu(SMALL)) == 1


def test_as_many_processes_as_wished_share_the_cores() -> None:
    assert _cpu(LARGE, workers=4) == [Place(device="cpu", cores=2)] * 4
    assert _cpu(SMALL, workers=3) == [Place(device="cpu", cores=2)] * 3


def test_all_gpus_are_taken_or_those_that_are_named_with_a_process_each(machine: pytest.MonkeyPatch) -> None:
    assert devices_of("auto", None) == ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]
    assert devices_of("auto", [0, 2]) == ["cuda:0", "cuda:2"]
    assert devices_of("cuda:1", None) == ["cuda:1"]
    assert devices_of("cpu", None) == ["cpu"]
    taken = places(["cuda:0", "cuda:2"], SMALL, images=50_000, workers=8, trials_left=100)
    assert [place.device for place in taken] == ["cuda:0", "cuda:2"]
    machine.setattr(torch.cuda, "is_available", lambda: False)
    assert devices_of("auto", None) == ["cpu"]


def test_gpus_that_are_not_there_are_refused() -> None:
    with pytest.raises(ConfigError, match="--gpus: there is no GPU 4, 7; its 4 usable GPUs are numbered from 0"):
        devices_of("auto", [0, 4, 7])


def test_a_number_of_workers_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--workers 9 .*: this process may use 8 cores"):
        check_workers(9, ["cpu"], typed=False)
    with pytest.raises(ConfigError, match="--workers is for a CPU; on GPUs one process works on each"):
        check_workers(2, ["cuda:0"], typed=True)
    for workers, devices, typed in ((8, ["cpu"], True), (None, ["cuda:0"], False), (99, ["cuda:0"], False)):
        check_workers(workers, devices, typed=typed)
