"""Benchmark of one Triton training step: its kernels and its bytes.

    python tests/benchmarks/launches.py

It needs no GPU: kernels are counted at their launches. The bytes are those of bfloat16 activations; each kernel and
product reads and writes what it needs once, without any cache.
"""

import os
from collections import Counter
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime import interpreter

from kmnist_search.config import DataConfig, PatchMLPConfig, TrainConfig, trial_config
from kmnist_search.config.cost import flops_per_image
from kmnist_search.data import search_data
from kmnist_search.engine.training import Training

NETS: dict[str, dict[str, Any]] = {
    "small": {
        "patch_size": 7,
        "dim": 128,
        "token_width": 64,
        "channel_width": 128,
        "num_blocks": 2,
        "batch_size": 128,
    },
    "reference": {
        "patch_size": 4,
        "dim": 256,
        "token_width": 128,
        "channel_width": 512,
        "num_blocks": 4,
        "batch_size": 256,
    },
}
DRAWN = {"shift": 2.0, "rotate": 10.0, "scale": 0.1, "shear": 8.0, "elastic": 1.0, "cutout": 8, "drop_path": 0.1}
#: Of a tensor, what makes another view of it and launches nothing.
VIEWS = {
    "view",
    "select",
    "slice",
    "unsqueeze",
    "squeeze",
    "transpose",
    "permute",
    "unbind",
    "t",
    "detach",
    "as_strided",
}
NOTHING = VIEWS | {"empty", "empty_like", "_unsafe_view", "alias", "expand", "split"}


class Launches(TorchDispatchMode):
    """Counts the kernels that torch launches while entered."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.of: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name not in NOTHING:
            self.of[name] += 1
        return func(*args, **(kwargs or {}))


def megabytes(config: PatchMLPConfig, batch_size: int) -> float:
    """Return the bytes that the blocks of one step read and write."""
    N, X = config.num_tokens, batch_size * config.dim
    stream = N * X
    total = 0
    for T, C in zip(config.token_widths, config.channel_widths, strict=True):
        for hidden in (T * X, N * batch_size * C):
            norms = 4 * stream + 4 * stream  # forward: y, residual, x, n; backward: dn, x, dx, dx
            activations = 2 * hidden + 3 * hidden
            products = 6 * (stream + hidden)
            total += norms + activations + products
    return total * 2 / 1e6


def main() -> None:
    kernels: Counter[str] = Counter()

    def counted(executor: Any, *_: Any, **__: Any) -> None:
        kernels[executor.fn.__name__] += 1

    interpreter.GridExecutor.__call__ = counted
    data = search_data.load_training_set("digits", Path()).split(DataConfig().whole())
    for name, net in NETS.items():
        for title, drawn in (("", {}), ("augmented", DRAWN)):
            config = trial_config({**net, **drawn}, TrainConfig(epochs=1, precision="bfloat16"))
            training = Training(config, data, seed=0, device=torch.device("cpu"), backend="triton")
            training.program.begin([training.begin_epoch()])
            kernels.clear()
            with Launches() as launches:
                training.program.train_step()
            products = sum(count for op, count in launches.of.items() if op in ("mm", "bmm"))
            rest = launches.of.total() - products
            gflop = 3 * config.batch.batch_size * flops_per_image(config.model) / 1e9
            print(
                f"{name:10} {title:10} {kernels.total():3} fused kernels, {products:3} products, {rest:2} others; "
                f"{gflop:6.1f} GFLOP, {megabytes(config.patch_mlp, config.batch.batch_size):6.0f} MB"
            )


if __name__ == "__main__":
    main()
