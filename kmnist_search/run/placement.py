"""Placement of the worker processes of a run: their devices, their number, and the cores of each."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from kmnist_search.config import TrialConfig
from kmnist_search.engine.device import device_named
from kmnist_search.engine.memory_estimate import FLOAT32, VAL_BATCH_SIZE, memory_needed
from kmnist_search.errors import ConfigError
from kmnist_search.host.resources import available_memory, usable_cores
from kmnist_search.run.options import RunOptions

#: A worker process of kmnist-cpu mostly takes 0.58 GB of its own (tests/benchmarks/LOG.md), sometimes more.
WORKER_BYTES = 1_000_000_000
#: A process takes about 5 s to start, so it should work longer than that: a core trains a small net on about 10,000
#: images a second.
IMAGES_WORTH_A_WORKER = 150_000


@dataclass(frozen=True, kw_only=True)
class Place:
    """The device of one worker process, and the number of its CPU threads at most."""

    device: str
    cores: int


def check_device(options: RunOptions) -> None:
    """Raise ConfigError if there is no such device, or if it cannot train `per_gpu` trials at a time."""
    device = device_named(options.device)
    if options.per_gpu is not None and options.per_gpu > 1 and device.type == "cpu":
        raise ConfigError(
            f"--per-gpu {options.per_gpu}: the device is the CPU, which trains one trial at a time. "
            "Leave it out; --workers says how many processes share its cores."
        )


def devices_of(options: RunOptions, *, insist_on_workers: bool = False) -> list[str]:
    """Return the devices of a run: `gpus` or `device`; "auto" means all GPUs, or the CPU if there is none.

    Args:
        options: of the run.
        insist_on_workers: refuse `workers` on GPUs, where it has no meaning, instead of ignoring it.

    Raises:
        ConfigError: there are no such GPUs, or `workers` is too large.
    """
    devices, workers = _devices(options.device, options.gpus), options.workers
    if workers is None:
        return devices
    if devices != ["cpu"]:
        if insist_on_workers:
            raise ConfigError("--workers is for a CPU; on GPUs one process works on each. Use --gpus, or --device cpu")
    elif workers > usable_cores():
        raise ConfigError(
            f"--workers {workers} (or KMNIST_SEARCH_WORKERS): this process may use {usable_cores()} cores, "
            "and more workers than cores only take turns"
        )
    return devices


def _devices(device: str, gpus: Sequence[int] | None) -> list[str]:
    if gpus is None and (device != "auto" or not torch.cuda.is_available()):
        return ["cpu" if device == "auto" else device]
    present = torch.cuda.device_count()
    numbers = range(present) if gpus is None else gpus
    missing = [str(number) for number in numbers if number >= present]
    if missing:
        has = f"the {present} usable GPUs are numbered from 0" if present else "this machine has no usable GPU"
        raise ConfigError(f"--gpus: there is no GPU {', '.join(missing)}; {has}. Leave --gpus out to use all there are")
    return [f"cuda:{number}" for number in numbers]


def places(
    devices: Sequence[str], config: TrialConfig, *, images: int, workers: int | None, trials_left: int
) -> list[Place]:
    """Return the places of the worker processes, at least one.

    Each GPU gets one process. On a CPU, two trainings of one thread each are faster than one of two threads, however
    large the net: each core gets a process, as far as there are work and memory.

    Args:
        devices: of the run.
        config: of a typical size.
        images: number of training images.
        workers: processes on a CPU; None means the fastest number that has enough work and fits into memory.
        trials_left: trials that can still be claimed; there are at most this many places.
    """
    cores = usable_cores()
    if devices == ["cpu"]:
        fastest = min(
            cores,
            available_memory() // (WORKER_BYTES + _training_bytes(config, images)),
            trials_left * config.train.epochs * images // IMAGES_WORTH_A_WORKER,
        )
        devices = ["cpu"] * (max(fastest, 1) if workers is None else workers)
    devices = devices[: max(trials_left, 1)]
    return [Place(device=device, cores=max(cores // len(devices), 1)) for device in devices]


def _training_bytes(config: TrialConfig, images: int) -> int:
    return memory_needed(config, train_images=images, val_images=VAL_BATCH_SIZE, activation_bytes=FLOAT32, on_gpu=False)
