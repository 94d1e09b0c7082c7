"""TPE with methods of optuna's overridden, and the positions of ordered choices."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from kmnist_search.optuna_internals import trial_id_of


class Positions:
    """A space whose ordered choices stand for their positions, as integers do.

    optuna takes all choices as equally far from each other.

    Attributes:
        space: the distributions as trials have them.
        positions: the same space, with positions for ordered choices.
    """

    def __init__(self, space: dict[str, BaseDistribution], ordered: Collection[str]) -> None:
        """Take the distributions that are proposed together, and the names of those that are choices in their order."""
        self.space = space
        self._choices = {name: choices for name, choices in space.items() if name in ordered}
        self.positions = space | {
            name: IntDistribution(0, len(choices.choices) - 1)
            for name, choices in self._choices.items()
            if isinstance(choices, CategoricalDistribution)
        }

    def chosen(self, proposed: Mapping[str, Any]) -> dict[str, Any]:
        """Return proposed hyperparameters as trials have them: the choice at each position."""
        return {
            name: self._choices[name].to_external_repr(value) if name in self._choices else value
            for name, value in proposed.items()
        }

    def positioned(self, params: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return a trial's hyperparameters with the position of each choice; None if it lacks one of the space."""
        if not self.space.keys() <= params.keys():
            return None
        return {
            name: int(spec.to_internal_repr(params[name])) if name in self._choices else params[name]
            for name, spec in self.space.items()
        }


#: The hyperparameters of finished trials as the sampler works on them, by trial id.
KnownRows = dict[int, tuple[float, ...]]


class KnownSpaceTPESampler(TPESampler):
    """TPE over a known space that keeps the order of choices, and converts those of a finished trial once.

    optuna converts the hyperparameters of all trials for each proposal: 20 to 40 of 140 to 170 ms among 10,000 trials
    (CPU time, 2 busy cores). There is no public way: distributions with a faster `to_internal_repr`, given to
    `sample_relative`, took as long as optuna's own (155 to 172 ms where these took 127 to 178 and this class 108 to
    122).

    Args:
        space: what is proposed together.
        known_rows: what samplers of the same study share; filled here.
        options: of optuna's sampler.
    """

    def __init__(self, space: Positions, known_rows: KnownRows, **options: Any) -> None:
        super().__init__(**options)
        self._known, self._known_rows = space, known_rows

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._known.space.copy()

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._known.chosen(super().sample_relative(study, trial, self._known.positions))

    def _get_internal_repr(
        self, trials: list[FrozenTrial], search_space: dict[str, BaseDistribution], study: Study
    ) -> dict[str, np.ndarray]:
        if search_space != self._known.positions:  # of a hyperparameter that is proposed by itself
            return super()._get_internal_repr(trials, search_space, study)
        rows = [row for trial in trials if (row := self._row(trial, study)) is not None]
        columns = np.array(rows, dtype=float).reshape(len(rows), len(search_space)).T
        return dict(zip(search_space, columns, strict=True))

    def _row(self, trial: FrozenTrial, study: Study) -> tuple[float, ...] | None:
        if (known := self._known_rows.get(trial_id_of(trial))) is not None:
            return known
        params = self._get_params(trial, study)
        if not self._known.space.keys() <= params.keys():
            return None
        row = tuple(spec.to_internal_repr(params[name]) for name, spec in self._known.space.items())
        if trial.state.is_finished():
            self._known_rows[trial_id_of(trial)] = row
        return row
