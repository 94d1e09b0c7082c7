"""The pace of trainings, in images a second, and the peak of a device, in operations a second."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from kmnist_search.config import TrialConfig
from kmnist_search.data.search_data import SearchData
from kmnist_search.engine.backends import Backend
from kmnist_search.engine.device import has_bfloat16
from kmnist_search.engine.onednn import onednn_products
from kmnist_search.engine.training import POLL_SECONDS, Training

#: Share of the measuring time that is trained before it begins: on a GPU, slices of an epoch find their size.
WARM_UP_SHARE = 0.2


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast something trains.

    Attributes:
        images_per_second: images trained on in a second, after the set-up.
        setup_seconds: seconds from the start until the first steps are done.
    """

    images_per_second: float
    setup_seconds: float


def training_pace(
    config: TrialConfig,
    data: SearchData,
    *,
    trials: int,
    device: torch.device,
    seconds: float,
    backend: Backend = "auto",
) -> Pace:
    """Run several trainings in this process, a step of each in turn, and return their pace together.

    Args:
        config: of every training.
        data: the images.
        trials: the number of trainings.
        device: the device that trains.
        seconds: how long to measure, after the set-up.
        backend: how the steps are computed.

    Returns:
        The images of all trainings in a second; the set-up of one training.
    """
    synchronise(device)
    began = time.perf_counter()
    trainings = [Training(config, data, seed=seed, device=device, backend=backend) for seed in range(trials)]
    _advance(trainings)
    synchronise(device)
    setup_seconds = (time.perf_counter() - began) / trials
    _images_per_second(trainings, device, seconds * WARM_UP_SHARE)
    return Pace(images_per_second=_images_per_second(trainings, device, seconds), setup_seconds=setup_seconds)


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has finished its work; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _advance(trainings: Sequence[Training]) -> bool:
    """Advance each training by a step or a slice; return whether an epoch ended."""
    are_over = [training.advance() for training in trainings]
    for training, is_over in zip(trainings, are_over, strict=True):
        if is_over:
            training.read()
    return any(are_over)


def _images_per_second(trainings: Sequence[Training], device: torch.device, seconds: float) -> float:
    synchronise(device)
    before, started = sum(training.images_trained for training in trainings), time.perf_counter()
    while True:
        if not _advance(trainings) and device.type == "cuda":
            time.sleep(POLL_SECONDS)
        if time.perf_counter() - started > seconds:
            break
    synchronise(device)
    images = sum(training.images_trained for training in trainings) - before
    return images / (time.perf_counter() - started)


@dataclass(frozen=True, kw_only=True)
class Peak:
    """Floating-point operations a second, in products of square matrices of a number format and a size."""

    flops_per_second: float
    precision: str
    size: int


def matrix_peak(device: torch.device, *, size: int | None = None, seconds: float = 1.0) -> Peak:
    """Return the peak of a device, from the median time of at least five products.

    In bfloat16 where the device multiplies it itself, as trainings do, and else in float32.

    Args:
        device: the device to measure.
        size: side of the matrices; None is 8192 on a GPU, 2048 on a CPU.
        seconds: how long to measure at least.
    """
    size = size or (8192 if device.type == "cuda" else 2048)
    dtype, precision = (torch.bfloat16, "bfloat16") if has_bfloat16(device) else (torch.float32, "float32")
    with onednn_products(device):
        found = _flops_per_second(device, size, dtype, seconds)
    return Peak(flops_per_second=found, precision=precision, size=size)


@torch.no_grad()
def _flops_per_second(device: torch.device, size: int, dtype: torch.dtype, seconds: float) -> float:
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    bias = torch.zeros(size, device=device, dtype=dtype)
    F.linear(a, b, bias)
    synchronise(device)
    times: list[float] = []
    while len(times) < 5 or sum(times) < seconds:
        started = time.perf_counter()
        F.linear(a, b, bias)
        synchronise(device)
        times.append(time.perf_counter() - started)
    return 2 * size**3 / statistics.median(times)
