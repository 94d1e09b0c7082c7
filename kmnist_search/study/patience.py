"""How long a study has had no new best trial, beyond the noise between equal trainings."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

from optuna.trial import FrozenTrial, TrialState

from kmnist_search.study.halving import rung_of


def noise_of(trials: Iterable[FrozenTrial]) -> float | None:
    """Return the standard deviation of the metric between complete trials of equal hyperparameters.

    It is pooled over all hyperparameters that were tried more than once; None if none were.
    """
    groups: dict[frozenset[tuple[str, object]], list[float]] = defaultdict(list)
    for trial in trials:
        if trial.state == TrialState.COMPLETE:
            groups[frozenset(trial.params.items())].append(trial.values[0])
    squares = [(value - sum(values) / len(values)) ** 2 for values in groups.values() for value in values]
    freedom = sum(len(values) - 1 for values in groups.values())
    return math.sqrt(sum(squares) / freedom) if freedom else None


def trials_since_best(trials: Sequence[FrozenTrial], *, maximizes: bool) -> int:
    """Return how many trials have finished since the last new best; 0 before the first.

    Only a difference above the noise makes a new best. A paused trial does not count: it may resume.
    """
    sign, margin = (1 if maximizes else -1), noise_of(trials) or 0.0
    finished = [trial for trial in trials if trial.state.is_finished() and rung_of(trial) is None]
    over = [trial for trial in finished if trial.datetime_complete is not None]
    over.sort(key=lambda trial: (trial.datetime_complete, trial.number))
    best, since = -math.inf, 0
    for trial in over:
        value = sign * trial.values[0] if trial.state == TrialState.COMPLETE else -math.inf
        if value > best + (margin if best > -math.inf else 0.0):
            best, since = value, 0
        elif best > -math.inf:
            since += 1
    return since
