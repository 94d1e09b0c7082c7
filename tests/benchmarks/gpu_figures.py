"""Two parts of gpu.py: whether every kind of training runs on a GPU, and how fast nets train and begin.

    python tests/benchmarks/gpu_figures.py matrix|paces [--known FILE]

Each figure is a line of JSON as soon as it is known, flushed. Figures in FILE are not measured again.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from kmnist_search.bench.nets import EPOCH_IMAGES, REFERENCE, SMALL, STEP_COST, WARM_UP, noise
from kmnist_search.bench.pace import matrix_peak, training_pace
from kmnist_search.config import DataConfig, TrainConfig, TrialConfig, trial_config
from kmnist_search.config.cost import flops_per_image
from kmnist_search.data import search_data
from kmnist_search.engine import self_check
from kmnist_search.engine.backends import Backend
from kmnist_search.engine.device import first_line, is_lost
from kmnist_search.engine.training import Training

#: The exit code after an error that leaves this process without its GPU; another process measures the rest.
LOST = 3
GPU = torch.device("cuda", 0)
REPEATS = 3
SECONDS = 3.0
TRIALS_AT_ONCE = (1, 4, 8)

SHAPE = {"patch_size": 7, "dim": 64, "token_width": 32, "channel_width": 128, "num_blocks": 2, "batch_size": 64}
KINDS: dict[str, dict[str, Any]] = {
    "little": {},
    "everything drawn": self_check.CASES["everything drawn"],
    "sgd": {"optimizer": "sgd", "norm": "none", "learning_rate": 0.05},
    "batch norm": {"norm": "batch"},
}
CASES: list[tuple[Backend, str, str]] = [
    (backend, part, kind)
    for backend in ("torch", "triton")
    for part in ("split", "whole")
    for kind in KINDS
    if (backend, kind) != ("triton", "batch norm")  # which has no kernels
]

Figures = Iterator[dict[str, Any]]


def matrix(known: set[str]) -> Figures:
    """Train each kind for two epochs of digits: 1 if the loss falls, 0 with the reason if not, or if it fails."""
    images = search_data.load_training_set("digits", Path())
    datas = {
        "split": images.split(DataConfig(dataset="digits")),
        "whole": images.split(DataConfig(dataset="digits").whole()),
    }
    for backend, part, kind in CASES:
        name = f"{backend}, {part}, {kind}: trains"
        if name in known:
            continue
        config = trial_config({"learning_rate": 0.003, **SHAPE, **KINDS[kind]}, TrainConfig(epochs=2))
        try:
            first, last = Training(config, datas[part], seed=0, device=GPU, backend=backend).epochs()
        except Exception as error:  # whatever it is, it is the figure
            yield {"name": name, "value": 0, "note": first_line(error)}
            if is_lost(error):
                sys.exit(LOST)
            continue
        falls = last.train_loss < first.train_loss
        yield {"name": name, "value": int(falls), "note": f"train_loss {first.train_loss:.3f}, {last.train_loss:.3f}"}


def paces(known: set[str]) -> Figures:
    """Measure seconds for an epoch of 60,000 images and the set-up, each as the median of three repeats with spread."""
    data, peak = noise().to(GPU), matrix_peak(GPU).flops_per_second
    training_pace(WARM_UP, data, trials=1, device=GPU, seconds=0.0)
    for net, config in {"reference": REFERENCE, "small": SMALL}.items():
        for trials in TRIALS_AT_ONCE:
            name = f"{net} net, seconds an epoch, {trials} at once"
            if name in known:
                continue
            training_pace(config, data, trials=trials, device=GPU, seconds=0.0)  # kernels are compiled untimed
            found = [training_pace(config, data, trials=trials, device=GPU, seconds=SECONDS) for _ in range(REPEATS)]
            rates = [pace.images_per_second for pace in found]
            flops = STEP_COST * flops_per_image(config.model)
            yield _repeated(name, [EPOCH_IMAGES / rate for rate in rates])
            yield _repeated(f"{net} net, share of peak, {trials} at once", [flops * rate / peak for rate in rates])
            yield _repeated(f"{net} net, seconds of set-up, {trials} at once", [pace.setup_seconds for pace in found])
    name = "new architecture, seconds of set-up"
    if name not in known:
        unseen = (training_pace(each, data, trials=1, device=GPU, seconds=0.0) for each in _unseen_nets(REFERENCE))
        yield _repeated(name, [pace.setup_seconds for pace in unseen])


def _unseen_nets(config: TrialConfig) -> list[TrialConfig]:
    """Return three nets that no process has trained before, of sizes that the study kmnist proposes."""
    return [
        config.model_copy(update={"model": config.patch_mlp.model_copy(update={"dim": dim, "num_blocks": blocks})})
        for dim, blocks in ((192, 6), (320, 3), (448, 5))
    ]


def _repeated(name: str, values: list[float]) -> dict[str, Any]:
    return {"name": name, "value": statistics.median(values), "spread": [min(values), max(values)]}


PARTS: dict[str, Callable[[set[str]], Figures]] = {"matrix": matrix, "paces": paces}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--known", type=Path)
    chosen = parser.parse_args()
    lines = chosen.known.read_text().splitlines() if chosen.known and chosen.known.exists() else []
    for figure in PARTS[chosen.part]({json.loads(line)["name"] for line in lines}):
        print(json.dumps(figure), flush=True)


if __name__ == "__main__":
    main()
