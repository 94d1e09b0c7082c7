"""Which devices a run takes, how many worker processes there are, and how many cores each gets. Starts none."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from kmnist_search.config import TrialConfig
from kmnist_search.engine.threads import threads_for
from kmnist_search.errors import ConfigError
from kmnist_search.host.resources import available_memory, usable_cores

#: A worker process of kmnist-cpu has 0.58 GB to itself most of the time (tests/benchmarks/LOG.md), and more at moments.
WORKER_BYTES = 1_000_000_000
#: A process takes some five seconds to start, so it should have more to do than that: small nets train on about ten
#: thousand images a second on a core.
IMAGES_WORTH_A_WORKER = 150_000


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one worker process works: on a device, and on a CPU with so many threads at most."""

    device: str
    cores: int


def devices_of(device: str, gpus: Sequence[int] | None) -> list[str]:
    """Return the devices that a run takes: those of the GPUs, or `device`, or for "auto" all GPUs or else the CPU.

    Raises:
        ConfigError: there are no such GPUs.
    """
    if gpus is None and (device != "auto" or not torch.cuda.is_available()):
        return ["cpu" if device == "auto" else device]
    present = torch.cuda.device_count()
    numbers = range(present) if gpus is None else gpus
    missing = [str(number) for number in numbers if number >= present]
    if missing:
        has = f"its {present} usable GPUs are numbered from 0" if present else "this machine has no usable GPU"
        raise ConfigError(
            f"--gpus: there is no GPU {', '.join(missing)}; {has}. Leave --gpus out to take what there is"
        )
    return [f"cuda:{number}" for number in numbers]


def check_workers(workers: int | None, devices: Sequence[str], *, typed: bool) -> None:
    """Refuse a number of workers that cannot be.

    Args:
        workers: as wished; None is no wish.
        devices: of the run.
        typed: whether it was typed for this run. Where not, but set for all runs, those on GPUs need not heed it.

    Raises:
        ConfigError: more workers than cores, or a number of them for GPUs.
    """
    if workers is None:
        return
    if devices != ["cpu"]:
        if typed:
            raise ConfigError("--workers is for a CPU; on GPUs one process works on each. Use --gpus, or --device cpu")
    elif workers > usable_cores():
        raise ConfigError(
            f"--workers {workers} (or KMNIST_SEARCH_WORKERS): this process may use {usable_cores()} cores, "
            "and more workers than cores only take turns"
        )


def places(
    devices: Sequence[str], config: TrialConfig, *, images: int, workers: int | None, trials_left: int
) -> list[Place]:
    """Return where to work, at least one place.

    On GPUs that is each of them. On a CPU small nets are fastest in one process a core, large ones in fewer with
    several threads each.

    Args:
        devices: of the run.
        config: as large as most trials.
        images: on which each trains.
        workers: as many on a CPU; None is as many as are fastest, have enough to do, and find memory.
        trials_left: there is no more to do than this.
    """
    cores = usable_cores()
    if devices == ["cpu"]:
        fastest = min(
            cores // threads_for(config, cores),
            available_memory() // WORKER_BYTES,
            trials_left * config.train.epochs * images // IMAGES_WORTH_A_WORKER,
        )
        devices = ["cpu"] * (max(fastest, 1) if workers is None else workers)
    devices = devices[: max(trials_left, 1)]
    return [Place(device=device, cores=max(cores // len(devices), 1)) for device in devices]
