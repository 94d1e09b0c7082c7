"""Benchmark of checkpoints: their size, and the time to write one and to read it.

    python tests/benchmarks/checkpoints.py [--folder DIR] [--device cuda]

The files are written to the folder; name one that is shared between machines to measure that. A worker writes a
checkpoint of each trial every 30 s, and one when it is stopped.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from kmnist_search.config import BatchConfig, DataConfig, OptimizerConfig, PatchMLPConfig, TrainConfig, TrialConfig
from kmnist_search.config.cost import num_parameters
from kmnist_search.data import search_data
from kmnist_search.data.search_data import SearchData
from kmnist_search.engine import checkpoint
from kmnist_search.engine.training import Training

REPEATS = 9
NETS = {
    "small": PatchMLPConfig(patch_size=7, dim=64, token_width=32, channel_width=128, num_blocks=2),
    "reference": PatchMLPConfig(patch_size=4, dim=256, token_width=128, channel_width=512, num_blocks=4),
    "large": PatchMLPConfig(patch_size=7, dim=512, token_width=256, channel_width=1024, num_blocks=8),
}


def begun(model: PatchMLPConfig, data: SearchData, device: torch.device) -> Training:
    """Return a training that has taken a few steps, so that the optimizer has its state."""
    config = TrialConfig(
        model=model,
        optimizer=OptimizerConfig(learning_rate=1e-3),
        batch=BatchConfig(batch_size=256),
        train=TrainConfig(epochs=10),
    )
    training = Training(config, data, seed=0, device=device)
    while not training.advance():
        pass
    training.read()
    return training


def milliseconds(work: Callable[[], object]) -> str:
    """Return the median and the maximum of a few times."""
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - started))
    return f"{statistics.median(times):7.1f} {max(times):7.1f}"


def measure(name: str, model: PatchMLPConfig, data: SearchData, device: torch.device, folder: Path) -> None:
    training, path = begun(model, data, device), folder / f"{name}.pt"
    written = milliseconds(lambda: checkpoint.save(training, path))
    megabytes = path.stat().st_size / 1e6

    def read() -> None:
        assert checkpoint.resume(training, path) is None

    print(f"{name:10}  {num_parameters(model):11,}  {megabytes:6.2f} MB  {written}  {milliseconds(read)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where to write; by default a temporary folder")
    parser.add_argument("--device", default="cpu")
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    data = search_data.load(DataConfig(dataset="digits"), Path()).to(device)
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        print(f"torch {torch.__version__}, {device}, in {folder}")
        print("net          parameters       size  written, ms: median, max;  read, ms: median, max")
        for name, model in NETS.items():
            measure(name, model, data, device, Path(folder))


if __name__ == "__main__":
    main()
