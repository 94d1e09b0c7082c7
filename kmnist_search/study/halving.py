"""Successive halving that pauses: a trial waits at each rung until it is among the best that came as far.

A rung is a number of epochs. A trial that reaches one keeps its checkpoint and pauses, unless its value there is among
the best share of all trials that came as far; a free worker resumes the best paused trial that has come into that share
since (asynchronous successive halving with promotion, Li et al. 2020, arXiv:1810.05934). Optuna's pruners decide at
once instead, and for good: early trials continue because there is little to compare them with, and good ones end
because they met better ones.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import neg

from optuna.trial import FrozenTrial, TrialState

from kmnist_search.database.trial_writer import PAUSED_KEY
from kmnist_search.optuna_internals import trial_id_of
from kmnist_search.queue.queue import Paused
from kmnist_search.study.second_objective import Sizes, front_ranks

#: The metric of a trial at a rung, higher is better, and the size of its net, 0 unless that is an objective.
Standing = tuple[float, int]
#: How trials stand at each rung, by id.
AtRungs = Mapping[int, Mapping[int, Standing]]


@dataclass(frozen=True, kw_only=True)
class Halving:
    """The rungs, and the share that passes each.

    Attributes:
        rungs: epochs after which a trial may pause, ascending, below those of a whole training.
        factor: about one in so many trials passes a rung.
        maximizes: whether a higher metric is better.
        sizes: of nets, if small ones are the second objective: then those pass first that are the best of their size
            (Schmucker et al. 2021, arXiv:2106.12639).
    """

    rungs: Sequence[int]
    factor: int
    maximizes: bool
    sizes: Sizes | None = None

    @classmethod
    def of(cls, *, min_epochs: int, epochs: int, factor: int, maximizes: bool, sizes: Sizes | None = None) -> "Halving":
        """Return rungs at `min_epochs` times each power of `factor`, below `epochs`."""
        rungs, rung = [], min_epochs
        while rung < epochs:
            rungs.append(rung)
            rung *= factor
        return cls(rungs=tuple(rungs), factor=factor, maximizes=maximizes, sizes=sizes)

    def passes(self, trials: Iterable[FrozenTrial], trial_id: int, rung: int) -> bool:
        """Return whether a trial that has reached a rung may continue at once."""
        return trial_id in self._passing(self._at_rungs(trials)[rung], is_last_chance=False)

    def next_paused(self, trials: Collection[FrozenTrial], *, is_last_chance: bool) -> Paused | None:
        """Return the paused trial that shall resume: of those at the highest rung the best; None if there is none.

        Args:
            trials: of the study.
            is_last_chance: nothing else is left to do: one trial passes each rung, however few have reached it.
        """
        at_rungs = self._at_rungs(trials)
        waiting = {trial_id_of(trial): rung_of(trial) for trial in trials}
        for rung in reversed(self.rungs):
            for trial_id in self._passing(at_rungs[rung], is_last_chance=is_last_chance):
                if waiting[trial_id] == rung:
                    return Paused(trial_id=trial_id, rung=rung)
        return None

    def _at_rungs(self, trials: Iterable[FrozenTrial]) -> AtRungs:
        sign = 1 if self.maximizes else -1
        at_rungs: dict[int, dict[int, Standing]] = {rung: {} for rung in self.rungs}
        for trial in trials:
            if trial.state == TrialState.FAIL or (trial.state == TrialState.PRUNED and rung_of(trial) is None):
                continue  # it diverged or failed: nobody shall wait behind it
            for rung in self.rungs:
                value = trial.intermediate_values.get(rung)
                if value is not None and not math.isnan(value):
                    at_rungs[rung][trial_id_of(trial)] = sign * value, self.sizes(trial) if self.sizes else 0
        return at_rungs

    def _passing(self, at_rung: Mapping[int, Standing], *, is_last_chance: bool) -> list[int]:
        """Return the ids of the trials that pass, the best first."""
        trial_ids = sorted(at_rung)
        values = [at_rung[each][0] for each in trial_ids]
        fronts = front_ranks(values, [at_rung[each][1] for each in trial_ids]) if self.sizes else [0] * len(values)
        ranked = [trial_id for _, _, trial_id in sorted(zip(fronts, map(neg, values), trial_ids, strict=True))]
        least = 1 if is_last_chance else 0
        return ranked[: max(len(ranked) // self.factor, least)]


def rung_of(trial: FrozenTrial) -> int | None:
    """Return the rung at which a trial is paused, or None."""
    rung: int | None = trial.system_attrs.get(PAUSED_KEY)
    return rung if trial.state == TrialState.PRUNED else None
