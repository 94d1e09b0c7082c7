"""Benchmark of ways to search: the accuracy found against the epochs spent, on curves of real trainings.

    python tests/benchmarks/search/compare.py TABLE REPEATS [--repetitions 100] [--workers 1] [--only NAME ...]

TABLE has the curves that the surrogate learns from, REPEATS the same configurations with other seeds. It prints the
median and the quartiles over the repetitions after 45 to 900 epochs, and how many epochs each way needs for what random
search has after 900.
"""

import argparse
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import optuna
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.benchmarks.search.curves import read
from tests.benchmarks.search.simulation import Simulation, World, steps
from tests.benchmarks.search.surrogate import Surrogate
from tests.benchmarks.search.ways import WAYS, SamplerAndRule

EPOCHS = 900
SHOWN = (45, 90, 180, 225, 450, 900)


def noise(table: Path, repeats: Path) -> NDArray[np.float64]:
    """Return how the logarithm of the error differs from its mean between two trainings, (P, E)."""
    first, second = read(table), read(repeats)
    by_params = {tuple(params.values()): number for number, params in enumerate(first.params)}
    pairs = [(by_params[tuple(params.values())], number) for number, params in enumerate(second.params)]
    errors = [(1 - first.accuracy_TE[a], 1 - second.accuracy_TE[b]) for a, b in pairs]
    return np.array([(np.log(one) - np.log(other)) / np.sqrt(2) for one, other in errors])


def repeated(world: World, way: SamplerAndRule, *, repetitions: int, workers: int) -> NDArray[np.float64]:
    """Return the accuracy found after each number of epochs, (repetitions, EPOCHS)."""
    at = np.arange(1, EPOCHS + 1)
    runs = (Simulation(world, way, seed, workers).run(EPOCHS) for seed in range(repetitions))
    return np.array([steps(run, at) for run in runs])


def epochs_until(found_E: NDArray[np.float64], accuracy: float) -> int | None:
    """Return after how many epochs an accuracy is reached for good."""
    below = np.flatnonzero(found_E < accuracy)
    reached = 1 if not len(below) else int(below[-1]) + 2
    return reached if reached <= len(found_E) else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("repeats", type=Path)
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", nargs="*")
    chosen = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    world = World(surrogate=Surrogate(read(chosen.table)), noise_PE=noise(chosen.table, chosen.repeats))
    print(f"{'':44}" + "".join(f"{epochs:>21}" for epochs in SHOWN) + f"{'as random':>12}")
    target = None
    for way in WAYS:
        if chosen.only and way.name not in ("random", *chosen.only):
            continue
        began = time.process_time()
        found = repeated(world, way, repetitions=chosen.repetitions, workers=chosen.workers)
        low, median, high = np.quantile(found, (0.25, 0.5, 0.75), axis=0) * 100
        target = median[-1] if target is None else target
        cells = [f"{median[e - 1]:7.2f} ({low[e - 1]:.2f}-{high[e - 1]:.2f})" for e in SHOWN]
        needed = epochs_until(median, target)
        text = "never" if needed is None else f"{needed} ({needed / EPOCHS:.2f})"
        took = (time.process_time() - began) / chosen.repetitions
        print(f"{way.name:44}" + "".join(f"{cell:>21}" for cell in cells) + f"{text:>12}  {took:.1f} s", flush=True)


if __name__ == "__main__":
    main()
