"""The final metric of trials that paused or ended early, extrapolated by what the others gained after that epoch."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

#: The smallest error and loss that are told apart.
LEAST = 1e-6


def log_errors(trials: Sequence[FrozenTrial], *, epochs: int, maximizes: bool) -> NDArray[np.float64]:
    """Return the logarithm of each trial's final error or loss, (T,), lower is better.

    A trial that reached only some epochs is taken to gain from then on, epoch by epoch, what half of the trials gained
    that trained as far. One that diverged is as bad as the worst that did not.

    Args:
        trials: each with the metric of at least one epoch.
        epochs: of a whole training.
        maximizes: whether the metric is an accuracy; else it is a loss.
    """
    errors_TE = np.full((len(trials), epochs), np.nan)
    for errors_E, trial in zip(errors_TE, trials, strict=True):
        for epoch, value in trial.intermediate_values.items():
            if epoch <= epochs:
                errors_E[epoch - 1] = 1 - value if maximizes else value
    with np.errstate(invalid="ignore"):
        logs_TE = np.log(np.maximum(errors_TE, LEAST))
    logs_TE[~np.isfinite(logs_TE)] = np.nan
    left_E = _expected_change(logs_TE)
    finals_T = np.full(len(trials), np.nan)
    for epoch in range(epochs):
        reached_T = ~np.isnan(logs_TE[:, epoch])
        finals_T[reached_T] = logs_TE[reached_T, epoch] + left_E[epoch]
    diverged_T = np.isnan(finals_T)
    finals_T[diverged_T] = 0.0 if diverged_T.all() else np.nanmax(finals_T)
    return finals_T


def _expected_change(logs_TE: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return by how much the logarithm of the error changes from each epoch to the last, (E,)."""
    changes_E = np.zeros(logs_TE.shape[1])
    for epoch, change_T in enumerate(np.diff(logs_TE, axis=1).T):
        known_T = change_T[~np.isnan(change_T)]
        changes_E[epoch] = np.median(known_T) if len(known_T) else 0.0
    total_E: NDArray[np.float64] = np.cumsum(changes_E[::-1])[::-1]
    return total_E
