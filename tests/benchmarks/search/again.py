"""Prints the study file that trains the first configurations of a table of curves again, with other seeds.

    python tests/benchmarks/search/again.py kmnist 100 > again.toml
    kmnist-search run again.toml --trials 100 --data-dir DATA_DIR

`--epochs 3` trains them with a schedule that ends at a third, `--set fixed.schedule=wsd` with one that only decays at
the end, `--set fixed.ema_decay=0.99` with a moving average; each under a `--name` of its own. The rows of
`kmnist-repeats.csv`, `kmnist-third.csv` and the like were made so, with `curves.py`.
"""

import csv
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.benchmarks.search.curves import HYPERPARAMETERS


def main() -> None:
    name, number = sys.argv[1], int(sys.argv[2])
    text = Path(__file__).with_name(f"{name}.toml").read_text(encoding="utf-8")
    print(text.replace(f'"curves-{name}"', f'"curves-{name}-again"').replace("[study]", "[study]\nseed = 1"))
    with Path(__file__).with_name(f"{name}.csv").open(newline="") as file:
        for row in list(csv.DictReader(file))[:number]:
            print("[[enqueue]]", *(f"{key} = {row[key]}" for key in HYPERPARAMETERS), sep="\n", end="\n\n")


if __name__ == "__main__":
    main()
