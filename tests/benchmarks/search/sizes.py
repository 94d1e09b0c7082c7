"""Benchmark of the second objective: the accuracy of the best net of each size that a search finds.

    python tests/benchmarks/search/sizes.py TABLE REPEATS [--repetitions 50] [--epochs 450] [--model networks]

For each way to search it prints the median and the quartiles of the mean accuracy of the complete trial that is best
among the nets of at most so many parameters. The simulation is that of `compare.py`.
"""

import argparse
import os
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import TrialState

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.benchmarks.search.compare import BY_NAME, noise
from tests.benchmarks.search.curves import read
from tests.benchmarks.search.simulation import Simulation, World
from tests.benchmarks.search.surrogate import MODELS, Surrogate
from tests.benchmarks.search.ways import SIZES

MOST_PARAMETERS = (3_000, 6_000, 12_000, 25_000, 50_000, 100_000, 1_000_000)
COMPARED = (
    "random",
    "random, halving by size",
    "GP of log errors, halving by 3 pauses, from 3",
    "GP of log errors, halving by size",
    "GP of log errors and sizes",
    "GP of log errors and sizes, halving by size",
)


def found(world: World, way: str, epochs: int, seed: int) -> NDArray[np.float64]:
    """Return the mean accuracy of the best net of each of MOST_PARAMETERS that one search finds; NaN if none."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    simulation = Simulation(world, BY_NAME[way], seed)
    for _ in simulation.run(epochs):
        pass
    complete = [trial for trial in simulation.storage.get_all_trials(0) if trial.state == TrialState.COMPLETE]
    sizes = np.array([SIZES(trial) for trial in complete])
    seen, mean = np.array([trial.value for trial in complete]), np.zeros(len(complete))
    for number, trial in enumerate(complete):
        mean[number] = world.surrogate.accuracy([trial.params])[0][-1]
    best = np.full(len(MOST_PARAMETERS), np.nan)
    for number, most in enumerate(MOST_PARAMETERS):
        if (sizes <= most).any():
            best[number] = mean[np.argmax(np.where(sizes <= most, seen, -1.0))]
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("repeats", type=Path)
    parser.add_argument("--repetitions", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=450)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--only", nargs="*", default=COMPARED)
    parser.add_argument("--model", choices=MODELS, default="process")
    chosen = parser.parse_args()
    surrogate = Surrogate(read(chosen.table), chosen.model)
    world = World(surrogate=surrogate, noise_PE=noise(chosen.table, chosen.repeats))
    print(f"{'':46}{''.join(f'{most:>22,}' for most in MOST_PARAMETERS)}")
    with ProcessPoolExecutor(chosen.jobs) as pool:
        for name in chosen.only:
            same = (repeat(each) for each in (world, name, chosen.epochs))
            found_RS = 100 * np.array(list(pool.map(found, *same, range(chosen.repetitions))))
            low_S, median_S, high_S = np.nanquantile(found_RS, (0.25, 0.5, 0.75), axis=0)
            cells = [f"{m:.2f} ({a:.2f}-{b:.2f})" for a, m, b in zip(low_S, median_S, high_S, strict=True)]
            print(f"{name:46}{''.join(f'{cell:>22}' for cell in cells)}", flush=True)


if __name__ == "__main__":
    main()
