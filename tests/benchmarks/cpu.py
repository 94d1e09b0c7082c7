"""Benchmark of training on this CPU: images a second of ours and of a loop around a DataLoader, for kmnist-cpu.

    python tests/benchmarks/cpu.py DATA_DIR [--seconds 5] [--rounds 2]

It measures the study's enqueued configuration, the middle of its space, and a larger net with the augmentation that
good nets need. Ours runs as in `kmnist-search run`: alone, and in one process with one thread for each core; that also
in float32, where this CPU would choose bfloat16. The DataLoader loop runs without workers and with two, with torch's
default threads and with one thread, which suffers less on a busy machine. Each figure comes from new processes, and is
the best of the rounds. The ratios are to the best DataLoader loop.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from kmnist_search.config import TrainConfig, TrialConfig, trial_config
from kmnist_search.host.runtimes import set_up_runtimes

CORES = len(os.sched_getaffinity(0))
#: What is measured, and in how many processes at once.
WAYS = {
    "DataLoader, 0 workers": 1,
    "DataLoader, 0 workers, 1 thread": 1,
    "DataLoader, 2 workers": 1,
    "DataLoader, 2 workers, 1 thread": 1,
    "ours": 1,
    "ours, 1 thread": CORES,
    "ours, float32, 1 thread": CORES,
}
LARGER = {
    "patch_size": 7,
    "dim": 128,
    "token_width": 32,
    "channel_width": 256,
    "num_blocks": 3,
    "batch_size": 256,
    "rotate": 10.0,
    "scale": 0.1,
    "shear": 8.0,
}


def configurations() -> dict[str, TrialConfig]:
    from kmnist_search.study_file.builtin import find_study_file
    from kmnist_search.study_file.parser import load

    file = load(find_study_file("kmnist-cpu"))
    return {
        "enqueued": trial_config({**file.fixed, **file.enqueue[0]}, TrainConfig(epochs=5)),
        "middle": file.middle(),
        "larger": trial_config({**file.fixed, **LARGER}, TrainConfig(epochs=5)),
    }


def measure_here(data_dir: Path, name: str, way: str, seconds: float) -> None:
    """Print the images a second of one way to train, and the threads it used."""
    if way.startswith("ours"):
        set_up_runtimes()
    import torch

    from kmnist_search.config import DataConfig
    from kmnist_search.data import search_data
    from kmnist_search.engine.threads import threads_for
    from kmnist_search.engine.training import Training
    from tests.benchmarks.loops import dataloader_loop, time_steps

    config, device = configurations()[name], torch.device("cpu")
    if "float32" in way:
        config = config.model_copy(update={"train": TrainConfig(epochs=5, precision="float32")})
    data = search_data.load(DataConfig(), data_dir)

    def our_step() -> int:
        if training.advance():
            training.read()
            return 0
        return config.batch.batch_size

    if way.endswith("1 thread"):
        torch.set_num_threads(1)
    elif way.startswith("ours"):
        torch.set_num_threads(threads_for(config))
    if way.startswith("DataLoader"):
        pace = dataloader_loop(config, data, device, seconds=seconds, num_workers=2 if "2 workers" in way else 0)
    else:
        training = Training(config, data, seed=0, device=device)
        pace = time_steps(lambda: our_step, device=device, seconds=seconds, warm_up_steps=5)
    print(json.dumps({"images_per_second": pace.images_per_second, "threads": torch.get_num_threads()}))


def measure(data_dir: Path, name: str, way: str, seconds: float, *, processes: int = 1) -> tuple[float, int]:
    """Return the images a second of all processes together, and the threads of each."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OMP_")}
    command = [sys.executable, __file__, str(data_dir), "--seconds", str(seconds), "--only", name, way]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(processes)]
    found = [json.loads(process.communicate()[0]) for process in running]
    return sum(each["images_per_second"] for each in found), found[0]["threads"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", nargs=2, metavar=("CONFIGURATION", "WAY"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.only:
        name, way = chosen.only
        measure_here(chosen.data_dir, name, way, chosen.seconds)
        return
    import torch

    print(f"Python {platform.python_version()}, torch {torch.__version__}, {CORES} cores")
    for name in configurations():
        best: dict[str, tuple[float, int]] = {}
        for _ in range(chosen.rounds):
            for way, processes in WAYS.items():
                found = measure(chosen.data_dir, name, way, chosen.seconds, processes=processes)
                best[way] = max(best.get(way, (0.0, 0)), found)
        loop = max(pace for way, (pace, _) in best.items() if way.startswith("DataLoader"))
        for way, (pace, threads) in best.items():
            where = f"{WAYS[way]} x {threads} threads"
            print(f"{name:9} {way:32} {where} {pace:8.0f} images/s  {pace / loop:5.2f} x", flush=True)


if __name__ == "__main__":
    main()
