"""Benchmark of OpenMP's settings for waiting threads: steps a second of one training, and of two at once.

    python tests/benchmarks/threads.py DATA_DIR

Each row is one setting. Each figure comes from new processes, because OpenMP reads its settings once.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

SECONDS = 8.0
SETTINGS: tuple[dict[str, str], ...] = (
    {},
    {"OMP_WAIT_POLICY": "PASSIVE"},
    {"GOMP_SPINCOUNT": "10000"},
    {"OMP_NUM_THREADS": "1"},
)
NETS = {
    "p7 D64 k2": {"patch_size": 7, "dim": 64, "token_width": 32, "channel_width": 128, "num_blocks": 2},
    "p7 D160 k3": {"patch_size": 7, "dim": 160, "token_width": 64, "channel_width": 320, "num_blocks": 3},
}


def train(data_dir: Path, net: str) -> None:
    """Train for a while and print the steps a second."""
    import torch

    from kmnist_search.config import DataConfig, TrainConfig, trial_config
    from kmnist_search.data import search_data
    from kmnist_search.engine.training import Training

    config = trial_config({**NETS[net], "batch_size": 128, "shift": 1.5}, TrainConfig(epochs=5))
    data = search_data.load(DataConfig(), data_dir)
    training = Training(config, data, seed=0, device=torch.device("cpu"))
    list(training.epochs(lambda: training.step == 5))
    started = time.perf_counter()
    list(training.epochs(lambda: time.perf_counter() - started > SECONDS))
    print((training.step - 5) / (time.perf_counter() - started))


def measure(data_dir: Path, net: str, setting: dict[str, str], processes: int) -> list[float]:
    """Return the steps a second of that many trainings at once."""
    environment = {**{key: value for key, value in os.environ.items() if not key.startswith("OMP_")}, **setting}
    command = [sys.executable, __file__, str(data_dir), net]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(processes)]
    return [float(process.communicate()[0]) for process in running]


def main(data_dir: Path) -> None:
    for net in NETS:
        for setting in SETTINGS:
            name = " ".join(f"{key}={value}" for key, value in setting.items()) or "as torch comes"
            alone = measure(data_dir, net, setting, 1)[0]
            beside = measure(data_dir, net, setting, 2)
            print(
                f"{net:12} {name:24} alone {alone:6.1f}   two at once {beside[0]:6.1f} + {beside[1]:6.1f}", flush=True
            )


if __name__ == "__main__":
    if len(sys.argv) == 3:
        train(Path(sys.argv[1]), sys.argv[2])
    else:
        main(Path(sys.argv[1]))
