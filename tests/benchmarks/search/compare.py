"""Benchmark of ways to search: the accuracy found against the epochs spent, on curves of real trainings.

    python tests/benchmarks/search/compare.py TABLE REPEATS [--repetitions 100] [--workers 1] [--only NAME ...]
        [--jobs 2] [--plot FILE.html] [--from TABLE] [--model networks] [--epochs 450]

TABLE has the curves that the surrogate learns from, REPEATS the same configurations with other seeds. It prints the
median and quartiles over the repetitions after 45 to 450 epochs; the epochs of 100 trials; and after how many epochs
each way has what random search, and optuna's default, have after 100 trials, also as a share of their epochs. These two
are searched for 900 epochs, the others for --epochs. With --from the others begin with the five best configurations of
a second table. --model is what the surrogate is. The way "CMA-ES" needs `pip install cmaes`.
"""

import argparse
import os
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
import optuna
import plotly.graph_objects as go
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[3]))

from kmnist_search.study_file.space import FloatRange, Hyperparameter
from tests.benchmarks.search.curves import read
from tests.benchmarks.search.simulation import Simulation, World, steps
from tests.benchmarks.search.surrogate import MODELS, Surrogate
from tests.benchmarks.search.ways import SPACE, WAYS

TRIALS = 100
#: The epochs of a search that the others are measured by, and of another one.
BASELINE_EPOCHS, EPOCHS = 900, 450
SHOWN = (27, 45, 90, 180, 225, 450)
BY_NAME = {way.name: way for way in WAYS}
#: What the others are measured by.
BASELINES = ("random", "optuna's default")
#: How many configurations of another table are tried first.
FIRST = 5

Configurations = Sequence[dict[str, float]]


def noise(table: Path, repeats: Path) -> NDArray[np.float64]:
    """Return how the logarithm of the error differs from its mean between two trainings, (P, E)."""
    first, second = read(table), read(repeats)
    by_params = {tuple(params.values()): number for number, params in enumerate(first.params)}
    pairs = [(by_params[tuple(params.values())], number) for number, params in enumerate(second.params)]
    errors = [(1 - first.accuracy_TE[a], 1 - second.accuracy_TE[b]) for a, b in pairs]
    return np.array([(np.log(one) - np.log(other)) / np.sqrt(2) for one, other in errors])


@dataclass(frozen=True, eq=False, kw_only=True)
class Comparison:
    """What one way finds, over R repetitions.

    Attributes:
        found_RE: accuracy found after each number of epochs.
        epochs: that it spends on TRIALS trials, at the median, or all if it began fewer.
        seconds: CPU time of a repetition.
    """

    found_RE: NDArray[np.float64]
    epochs: int
    seconds: float

    @property
    def quartiles(self) -> tuple[NDArray[np.float64], ...]:
        """The lower quartile, the median and the upper quartile of the accuracy found."""
        return tuple(np.quantile(self.found_RE, (0.25, 0.5, 0.75), axis=0))

    @property
    def accuracy(self) -> float:
        """The accuracy found with TRIALS trials, at the median."""
        return float(self.quartiles[1][self.epochs - 1])

    def epochs_until(self, accuracy: float) -> int | None:
        """Return after how many epochs the median reaches an accuracy for good."""
        below = np.flatnonzero(self.quartiles[1] < accuracy)
        reached = 1 if not len(below) else int(below[-1]) + 2
        return reached if reached <= self.found_RE.shape[1] else None


def searched(
    world: World, way: str, workers: int, first: Configurations, epochs: int, seed: int
) -> tuple[NDArray[np.float64], int, float]:
    """Return what one search finds after each number of epochs, the epochs of TRIALS trials, and CPU seconds."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    began = time.process_time()
    simulation = Simulation(world, BY_NAME[way], seed, workers, first)
    found_E = steps(simulation.run(epochs), np.arange(1, epochs + 1))
    spent = simulation.spent_before[TRIALS] if len(simulation.spent_before) > TRIALS else epochs
    return found_E, spent, time.process_time() - began


def best_of(table: Path, number: int) -> Configurations:
    """Return the best configurations of a table, with values as SPACE has them."""
    curves = read(table)
    best = np.argsort(-curves.accuracy_TE[:, -1], kind="stable")[:number]
    return [{name: _as_in(SPACE[name], value) for name, value in curves.params[each].items()} for each in best]


def _as_in(spec: Hyperparameter, value: float) -> float:
    return value if isinstance(spec, FloatRange) else int(value)


def compared(
    world: World, way: str, *, repetitions: int, workers: int, first: Configurations, epochs: int, pool: Executor
) -> Comparison:
    """Return what a way finds in so many searches with different seeds."""
    same = (repeat(each) for each in (world, way, workers, first, epochs))
    found = list(pool.map(searched, *same, range(repetitions), chunksize=5))
    return Comparison(
        found_RE=np.array([found_E for found_E, _, _ in found]),
        epochs=int(np.median([spent for _, spent, _ in found])),
        seconds=float(np.mean([seconds for _, _, seconds in found])),
    )


def plotted(comparisons: Mapping[str, Comparison], title: str) -> go.Figure:
    """Return the median of the error found by epochs spent, a line for each way."""
    drawn = go.Figure(layout={"title": {"text": title}, "template": "plotly_white", "width": 1000, "height": 600})
    for name, comparison in comparisons.items():
        errors = 100 * (1 - comparison.quartiles[1][:EPOCHS])
        drawn.add_scatter(x=np.arange(1, len(errors) + 1), y=errors, name=name, line={"shape": "hv", "width": 1.5})
    ticks = [20, 50, 100, 200, EPOCHS]
    drawn.update_xaxes(title="epochs of all trials", type="log", range=np.log10([20, EPOCHS]).tolist(), tickvals=ticks)
    drawn.update_yaxes(title="error of the configuration found, %", type="log")
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("repeats", type=Path)
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=list(BY_NAME))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--model", choices=MODELS, default="process")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--from", dest="other", type=Path)
    chosen = parser.parse_args()
    surrogate = Surrogate(read(chosen.table), chosen.model)
    world = World(surrogate=surrogate, noise_PE=noise(chosen.table, chosen.repeats))
    columns = "".join(f"{epochs:>21}" for epochs in SHOWN)
    print(f"{'':46}{columns}{'epochs':>8}{'as random':>12}{'as default':>12}")
    comparisons: dict[str, Comparison] = {}
    with ProcessPoolExecutor(chosen.jobs) as pool:
        for name in dict.fromkeys((*BASELINES, *chosen.only)):
            first = best_of(chosen.other, FIRST) if chosen.other and name not in BASELINES else ()
            comparisons[name] = compared(
                world,
                name,
                repetitions=chosen.repetitions,
                workers=chosen.workers,
                first=first,
                epochs=BASELINE_EPOCHS if name in BASELINES else chosen.epochs,
                pool=pool,
            )
            print(_row(name, comparisons), flush=True)
    if chosen.plot:
        plotted(comparisons, chosen.table.stem).write_html(
            chosen.plot, include_plotlyjs=True, config={"displayModeBar": False}
        )


def _row(name: str, comparisons: Mapping[str, Comparison]) -> str:
    comparison = comparisons[name]
    low_E, median_E, high_E = (100 * quartile_E for quartile_E in comparison.quartiles)
    shown = [epochs for epochs in SHOWN if epochs <= len(median_E)]
    cells = [f"{median_E[e - 1]:7.2f} ({low_E[e - 1]:.2f}-{high_E[e - 1]:.2f})" for e in shown]
    cells += [""] * (len(SHOWN) - len(shown))
    shares = []
    for baseline in (comparisons[each] for each in BASELINES if each in comparisons):
        needed = comparison.epochs_until(baseline.accuracy)
        shares.append("never" if needed is None else f"{needed} ({needed / baseline.epochs:.2f})")
    ends = "".join(f"{share:>12}" for share in shares)
    return (
        f"{name:46}{''.join(f'{cell:>21}' for cell in cells)}{comparison.epochs:>8}{ends}  {comparison.seconds:.1f} s"
    )


if __name__ == "__main__":
    main()
