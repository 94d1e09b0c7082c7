"""Benchmark of the outlook: the gain that `status` expects of more trials, beside the gain that they bring.

    python tests/benchmarks/search/gain.py TABLE REPEATS [--repetitions 100] [--only NAME ...]

For each way to search it prints the mean expected and the mean real gain, in points, of as many trials again as there
are, and between which values nine of ten of the real gains are.
"""

import argparse
import sys
import warnings
from pathlib import Path

import numpy as np
import optuna
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[3]))

from kmnist_search.study.outlook import expected_gain
from tests.benchmarks.search.compare import BY_NAME, noise
from tests.benchmarks.search.curves import read
from tests.benchmarks.search.simulation import Simulation, World
from tests.benchmarks.search.surrogate import Surrogate

TRIALS = 100
AFTER = (12, 25, 50)


def lowest_errors(world: World, way: str, seed: int) -> NDArray[np.float64]:
    """Return the lowest error after each of TRIALS trials of one search."""
    simulation = Simulation(world, BY_NAME[way], seed)
    for _ in simulation.run(9 * TRIALS):
        pass
    over = [trial for trial in simulation.storage.get_all_trials(0) if trial.state.is_finished()]
    complete = optuna.trial.TrialState.COMPLETE
    errors = [1 - trial.values[0] if trial.state == complete else 1.0 for trial in over]
    return np.minimum.accumulate(errors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("repeats", type=Path)
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--only", nargs="*", default=["random", "TPE", "TPE, halving by 3 stops"])
    chosen = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    world = World(surrogate=Surrogate(read(chosen.table)), noise_PE=noise(chosen.table, chosen.repeats))
    for way in chosen.only:
        errors = [lowest_errors(world, way, seed) for seed in range(chosen.repetitions)]
        for after in AFTER:
            known = [each for each in errors if len(each) >= 2 * after]
            expected = 100 * np.mean([expected_gain(each[:after].tolist(), after) for each in known])
            real = 100 * np.array([each[after - 1] - each[2 * after - 1] for each in known])
            low, high = np.quantile(real, (0.05, 0.95))
            text = f"expected {expected:.2f}, real {real.mean():.2f} ({low:.2f} to {high:.2f})"
            print(f"{way:30} {after:3} more after {after:3} trials: {text}", flush=True)


if __name__ == "__main__":
    main()
