"""Times steps of a training on any device. Knows nothing of what a step does."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """How fast something trains.

    Attributes:
        images_per_second: trained on, once it is set up.
        setup_seconds: from nothing until it trains at that pace.
    """

    images_per_second: float
    setup_seconds: float


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has done what it was told; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_steps(
    make_step: Callable[[], Callable[[], int]], *, device: torch.device, seconds: float, warm_up_steps: int = 2
) -> Throughput:
    """Make a step, take some to warm up, then take more until `seconds` are over, at least one.

    Args:
        make_step: sets a training up and returns what takes a step of it and says how many images that were.
        device: where it trains.
        seconds: to measure for; the last step may end later.
        warm_up_steps: steps that belong to the set-up.
    """
    synchronise(device)
    began = time.perf_counter()
    step = make_step()
    for _ in range(warm_up_steps):
        step()
    synchronise(device)
    started = time.perf_counter()
    images = step()
    while time.perf_counter() - started < seconds:
        images += step()
    synchronise(device)
    return Throughput(images_per_second=images / (time.perf_counter() - started), setup_seconds=started - began)
