"""The second objective of a study: small nets. The search then seeks the best net of each size, not the best alone."""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

#: How much the sum of both objectives counts beside the worse one (Knowles 2006).
SUM_WEIGHT = 0.05


class Sizes:
    """The number of parameters of each trial's net, known before it is trained.

    Args:
        of: returns it for the hyperparameters of a trial.
    """

    def __init__(self, of: Callable[[Mapping[str, Any]], int]) -> None:
        self._of = of
        self._known: dict[tuple[tuple[str, Any], ...], int] = {}

    def __call__(self, trial: FrozenTrial) -> int:
        """Return the number of parameters of a trial that has its hyperparameters."""
        key = tuple(trial.params.items())
        if key not in self._known:
            self._known[key] = self._of(trial.params)
        return self._known[key]


def scalarised(log_errors_T: NDArray[np.float64], sizes_T: Sequence[int], *, seed: int) -> NDArray[np.float64]:
    """Return one number for each trial, lower is better, which weighs error against size at random, (T,).

    The weight differs with the seed. Proposals that each minimise such a number are spread along the Pareto front
    (ParEGO: Knowles, IEEE Transactions on Evolutionary Computation, 2006).

    Args:
        log_errors_T: logarithm of each trial's error or loss, (T,).
        sizes_T: number of parameters of each trial's net.
        seed: of the weight.
    """
    objectives_2T = np.stack([_in_unit_range(log_errors_T), _in_unit_range(np.log(np.asarray(sizes_T)))])
    share = np.random.default_rng(seed).uniform()
    weighted_2T = np.array([[1 - share], [share]]) * objectives_2T
    found: NDArray[np.float64] = weighted_2T.max(axis=0) + SUM_WEIGHT * weighted_2T.sum(axis=0)
    return found


def _in_unit_range(values_T: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = values_T.min(), values_T.max()
    return (values_T - low) / (high - low) if high > low else np.zeros_like(values_T)


def front_ranks(values: Sequence[float], sizes: Sequence[float]) -> list[int]:
    """Return how many Pareto fronts lie before each trial: 0 where no smaller or equal net is as good.

    Of equal trials only the first is on a front (non-dominated sorting: Deb et al., IEEE Transactions on Evolutionary
    Computation, 2002; by one sort, as there are two objectives).

    Args:
        values: higher is better.
        sizes: lower is better.
    """
    ranks = [0] * len(values)
    #: The best value on each front so far, as its negative: it rises from front to front.
    best: list[float] = []
    for each in sorted(range(len(values)), key=lambda each: (sizes[each], -values[each])):
        rank = ranks[each] = bisect_right(best, -values[each])
        best[rank : rank + 1] = [-values[each]]
    return ranks
