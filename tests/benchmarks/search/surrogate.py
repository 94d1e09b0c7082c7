"""The surrogate: the learning curve that a configuration has on average, from the table of real ones.

    python tests/benchmarks/search/surrogate.py TABLE [--model process] [--folds 10]

It models the logarithm of the error in each epoch by the hyperparameters: as a Gaussian process, or as the mean of five
neural networks, so that a way to search that is a Gaussian process itself can be judged without one. The command tells
how well it ranks configurations that it has not seen: Kendall's tau with their real accuracy, by epoch.
"""

import argparse
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from sklearn.model_selection import KFold
from sklearn.neural_network import MLPRegressor

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.benchmarks.search.curves import HYPERPARAMETERS, Curves, read

Array = NDArray[np.float64]


#: The ranges of the space in kmnist.toml.
RANGES = {
    "batch_size": (64, 256),
    "learning_rate": (3e-4, 3e-2),
    "weight_decay": (1e-3, 0.5),
    "patch_size": (7, 14),
    "dim": (16, 128),
    "token_width": (8, 64),
    "channel_width": (32, 192),
    "num_blocks": (1, 4),
}


def features(params: Sequence[dict[str, float]]) -> Array:
    """Return the logarithms of the hyperparameters, each from 0 to 1 over the table's usual range, (T, H)."""
    logs_TH = np.log([[each[name] for name in HYPERPARAMETERS] for each in params])
    low_H, high_H = np.log([RANGES[name] for name in HYPERPARAMETERS]).T
    found: Array = (logs_TH - low_H) / (high_H - low_H)
    return found


class Regressor(Protocol):
    """What maps features (T, H) to targets (T,) or (T, E)."""

    def predict(self, x_TH: Array) -> Array: ...


class Networks:
    """The mean of five small neural networks that differ by their seeds."""

    def __init__(self, x_TH: Array, y: Array) -> None:
        options: dict[str, Any] = {"solver": "lbfgs", "alpha": 0.3, "max_iter": 300}
        self._networks = [
            MLPRegressor(hidden_layer_sizes=(64, 64), random_state=seed, **options).fit(2 * x_TH - 1, y)
            for seed in range(5)
        ]

    def predict(self, x_TH: Array) -> Array:
        found: Array = np.mean([each.predict(2 * x_TH - 1) for each in self._networks], axis=0)
        return found


def process(x_TH: Array, y_TE: Array) -> Regressor:
    """Return a Gaussian process; the lengths that fit the last epoch fit all."""
    kernel = ConstantKernel(4.0, (0.1, 100)) * Matern(np.full(x_TH.shape[1], 2.0), (0.1, 1000), nu=2.5)
    last = GaussianProcessRegressor(kernel + WhiteKernel(0.01, (1e-6, 1.0)), n_restarts_optimizer=1, random_state=0)
    last.fit(x_TH, y_TE[:, -1])
    fitted: Regressor = GaussianProcessRegressor(last.kernel_, optimizer=None).fit(x_TH, y_TE)
    return fitted


MODELS: Mapping[str, Callable[[Array, Array], Regressor]] = {"process": process, "networks": Networks}


class Surrogate:
    """Learning curves and seconds of configurations, as learned from a table."""

    def __init__(self, curves: Curves, model: str = "process") -> None:
        x_TH, y_TE = features(curves.params), np.log(1 - curves.accuracy_TE)
        self._mean_E, self._sd_E = y_TE.mean(axis=0), y_TE.std(axis=0)
        log_seconds_T = np.log(curves.seconds_T)
        self._mean_seconds = log_seconds_T.mean()
        with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):  # a bound met
            self._curves = MODELS[model](x_TH, (y_TE - self._mean_E) / self._sd_E)
            self._seconds = process(x_TH, log_seconds_T[:, None] - self._mean_seconds)

    def accuracy(self, params: Sequence[dict[str, float]]) -> Array:
        """Return the accuracy in each epoch, (T, E)."""
        found = self._curves.predict(features(params)) * self._sd_E + self._mean_E
        accuracy_TE: Array = 1 - np.minimum(np.exp(found), 0.95)
        return accuracy_TE

    def seconds(self, params: Sequence[dict[str, float]]) -> Array:
        """Return the seconds of an epoch, (T,)."""
        found: Array = np.exp(self._seconds.predict(features(params)).ravel() + self._mean_seconds)
        return found


def part(curves: Curves, chosen: NDArray[np.int64]) -> Curves:
    """Return some of the trainings."""
    params = [curves.params[number] for number in chosen]
    return Curves(params=params, accuracy_TE=curves.accuracy_TE[chosen], seconds_T=curves.seconds_T[chosen])


def held_out(curves: Curves, folds: int, model: str) -> Array:
    """Return the accuracies predicted for each training by a surrogate that has not seen it, (T, E)."""
    predicted = np.empty_like(curves.accuracy_TE)
    for known, unknown in KFold(folds, shuffle=True, random_state=0).split(curves.params):
        predicted[unknown] = Surrogate(part(curves, known), model).accuracy(part(curves, unknown).params)
    return predicted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--model", choices=MODELS, default="process")
    parser.add_argument("--folds", type=int, default=10)
    chosen = parser.parse_args()
    curves = read(chosen.table)
    predicted = held_out(curves, chosen.folds, chosen.model)
    print(f"{len(curves.params)} configurations, {chosen.model}, {chosen.folds} folds;")
    print("Kendall's tau of held-out accuracies by epoch:")
    for epoch, (real, found) in enumerate(zip(curves.accuracy_TE.T, predicted.T, strict=True), start=1):
        error = np.median(np.abs(real - found))
        print(f"epoch {epoch}: tau {stats.kendalltau(real, found).statistic:.3f}, half are within {error:.2%}")


if __name__ == "__main__":
    main()
