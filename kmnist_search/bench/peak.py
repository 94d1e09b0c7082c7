"""How many floating-point operations a second a device makes in large matrix products. Knows nothing of nets."""

import statistics
import time
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from kmnist_search.bench.stopwatch import synchronise
from kmnist_search.engine.onednn import onednn_products


@dataclass(frozen=True, kw_only=True)
class Peak:
    """Floating-point operations a second, in which number format, in products of which size."""

    flops_per_second: float
    precision: str
    size: int


def matrix_peak(device: torch.device, *, size: int | None = None, seconds: float = 1.0) -> Peak:
    """Return what square products of `size` come to, the median of as many as fit into the time, at least five.

    In bfloat16 on a GPU, in float32 on a CPU, there by the faster of torch's own products and oneDNN's.
    """
    on_gpu = device.type == "cuda"
    size = size or (8192 if on_gpu else 2048)
    if not on_gpu:
        plain = _flops_per_second(device, size, torch.float32, seconds / 2)
        with onednn_products(device):
            fast = _flops_per_second(device, size, torch.float32, seconds / 2)
        return Peak(flops_per_second=max(plain, fast), precision="float32", size=size)
    found = _flops_per_second(device, size, torch.bfloat16, seconds)
    return Peak(flops_per_second=found, precision="bfloat16", size=size)


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
