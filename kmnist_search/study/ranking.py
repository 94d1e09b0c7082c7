"""Which trials are the same configuration tried twice. Knows no database."""

import json
from collections.abc import Mapping, Sequence

from optuna.trial import FrozenTrial


def duplicates(ranked: Sequence[FrozenTrial]) -> Mapping[int, int]:
    """Return, for each trial that has the hyperparameters of a better one, the number of the best such one."""
    first: dict[str, int] = {}
    found = {}
    for trial in ranked:
        params = json.dumps(trial.params, sort_keys=True)
        if first.setdefault(params, trial.number) != trial.number:
            found[trial.number] = first[params]
    return found


def distinct(ranked: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials whose hyperparameters no better one has."""
    again = duplicates(ranked)
    return [trial for trial in ranked if trial.number not in again]
