"""The peak of a device: the floating-point operations a second that it reaches in large matrix products."""

import statistics
import time
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from kmnist_search.bench.pace import synchronise
from kmnist_search.engine.onednn import onednn_products


@dataclass(frozen=True, kw_only=True)
class Peak:
    """Floating-point operations a second, in products of square matrices of a number format and a size."""

    flops_per_second: float
    precision: str
    size: int


def matrix_peak(device: torch.device, *, size: int | None = None, seconds: float = 1.0) -> Peak:
    """Return the peak of a device, from the median time of at least five products.

    In bfloat16 on a GPU. In float32 on a CPU, with the faster of torch's own products and oneDNN's.

    Args:
        device: the device to measure.
        size: side of the matrices; None is 8192 on a GPU, 2048 on a CPU.
        seconds: how long to measure at least.
    """
    if device.type == "cuda":
        size = size or 8192
        found = _flops_per_second(device, size, torch.bfloat16, seconds)
        return Peak(flops_per_second=found, precision="bfloat16", size=size)
    size = size or 2048
    own = _flops_per_second(device, size, torch.float32, seconds / 2)
    with onednn_products(device):
        onednn = _flops_per_second(device, size, torch.float32, seconds / 2)
    return Peak(flops_per_second=max(own, onednn), precision="float32", size=size)


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
