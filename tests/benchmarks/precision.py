"""Benchmark of number formats on this CPU: validation accuracy and seconds in float32 and in bfloat16.

    python tests/benchmarks/precision.py DATA_DIR [--seeds 3]

It trains the enqueued configuration of `kmnist-cpu` as it is, and at a learning rate near the highest that works.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from kmnist_search.config import DataConfig, TrainConfig, trial_config
from kmnist_search.host.runtimes import set_up_runtimes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    chosen = parser.parse_args()
    set_up_runtimes()
    import torch

    from kmnist_search.data import search_data
    from kmnist_search.engine.training import Training
    from kmnist_search.study_file.builtin import find_study_file
    from kmnist_search.study_file.parser import load

    torch.set_num_threads(1)
    data, file = search_data.load(DataConfig(), chosen.data_dir), load(find_study_file("kmnist-cpu"))
    for rate in (4e-3, 1e-2):
        for seed in range(chosen.seeds):
            for precision in ("float32", "bfloat16"):
                train = TrainConfig.model_validate({"epochs": file.train.epochs, "precision": precision})
                config = trial_config({**file.fixed, **file.enqueue[0], "learning_rate": rate}, train)
                training = Training(config, data, seed=seed, device=torch.device("cpu"))
                *_, last = training.epochs()
                found = f"{last.val_accuracy:.2%} after {last.number} epochs, {training.seconds_so_far:.0f} s"
                print(f"learning rate {rate:g}  seed {seed}  {precision:8}  {found}", flush=True)


if __name__ == "__main__":
    main()
