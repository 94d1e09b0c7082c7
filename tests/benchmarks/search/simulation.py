"""Searches on a simulated clock: workers that train by the surrogate's curves, with the product's own storage.

A way to search is a sampler and a rule that ends or pauses trials. Both see what they would see in a real study: the
noisy accuracy of each epoch, and the trials that other workers train. A way is judged by the mean accuracy of the trial
that it would retrain; no way sees that number.
"""

import heapq
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from kmnist_search.database.trial_writer import PAUSED_KEY
from kmnist_search.optuna_internals import FIXED_PARAMS_KEY
from kmnist_search.study.cached_storage import CachedStorage
from kmnist_search.study.halving import Halving
from tests.benchmarks.search.surrogate import Surrogate

Array = NDArray[np.float64]
Suggest = Callable[[Trial], dict[str, float]]


@dataclass(frozen=True, eq=False, kw_only=True)
class World:
    """Where a search takes place: the curves, and how two trainings of one configuration differ.

    Attributes:
        noise_PE: differences of the logarithm of the error from its mean, as pairs of real trainings have them.
    """

    surrogate: Surrogate
    noise_PE: Array

    def curve(self, params: dict[str, float], draw: np.random.Generator) -> tuple[Array, Array]:
        """Return the accuracy of each epoch of one training, and the mean over all trainings of its configuration."""
        mean_E = self.surrogate.accuracy([params])[0]
        noise_E = self.noise_PE[draw.integers(len(self.noise_PE))] * draw.choice([-1.0, 1.0])
        return 1 - np.minimum((1 - mean_E) * np.exp(noise_E), 0.95), mean_E


class Way(Protocol):
    """A way to search."""

    @property
    def suggest(self) -> Suggest: ...
    @property
    def halving(self) -> Halving | None: ...

    def sampler(self, number: int, seed: int) -> optuna.samplers.BaseSampler: ...
    def pruner(self) -> optuna.pruners.BasePruner: ...


@dataclass(frozen=True, kw_only=True)
class Found:
    """The best trial so far, after `epochs` epochs and `seconds` of the simulated clock, by its mean accuracy."""

    epochs: int
    seconds: float
    accuracy: float


@dataclass(eq=False, kw_only=True)
class SimulatedTrial:
    """A trial under way.

    Attributes:
        seen_E: the accuracy that this training reports.
        mean_E: the accuracy of its configuration on average.
        done: epochs so far.
    """

    number: int
    trial: Trial
    seen_E: Array
    mean_E: Array
    seconds: float
    done: int = 0


@dataclass(eq=False)
class Simulation:
    """One search, from its first trial until it has used its epochs."""

    world: World
    way: Way
    seed: int
    workers: int = 1
    #: The hyperparameters of the first trials; those of the others are proposed.
    first: Sequence[dict[str, float]] = ()
    storage: CachedStorage = field(default_factory=lambda: CachedStorage(0, StudyDirection.MAXIMIZE))
    #: How many epochs all workers had trained when each trial began.
    spent_before: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._draw = np.random.default_rng(self.seed)
        self._trials: dict[int, SimulatedTrial] = {}

    def run(self, epochs: int) -> Iterator[Found]:
        """Search until so many epochs are trained; yield whenever another trial is the best."""
        clock = [(0.0, worker) for worker in range(self.workers)]
        heapq.heapify(clock)
        works: dict[int, SimulatedTrial] = {}
        spent, best = 0, (0, -1.0)
        while spent < epochs:
            now, worker = heapq.heappop(clock)
            if worker in works:
                spent += 1
                current = works[worker]
                if not self._continues(current):
                    del works[worker]
                standing = (current.done, float(current.seen_E[current.done - 1]))
                if standing > best:
                    best = standing
                    yield Found(epochs=spent, seconds=now, accuracy=float(current.mean_E[-1]))
            if worker not in works:
                works[worker] = self._next(spent)
            heapq.heappush(clock, (now + works[worker].seconds, worker))

    def _next(self, spent: int) -> SimulatedTrial:
        halving = self.way.halving
        if halving is not None:
            paused = halving.next_paused(self._frozen(), is_last_chance=False)
            if paused is not None:
                self._reopen(paused.trial_id)
                return self._trials[paused.trial_id]
        number = len(self._trials)
        self.spent_before.append(spent)
        now = datetime.now()
        new: dict[str, Any] = {"number": number, "trial_id": number, "state": TrialState.RUNNING, "value": None}
        empty: dict[str, Any] = {
            name: {} for name in ("params", "distributions", "user_attrs", "system_attrs", "intermediate_values")
        }
        if number < len(self.first):
            empty["system_attrs"] = {FIXED_PARAMS_KEY: self.first[number]}
        self._put(FrozenTrial(**new, **empty, datetime_start=now, datetime_complete=None))
        study = optuna.Study(
            study_name=CachedStorage.NAME,
            storage=self.storage,
            sampler=self.way.sampler(number, self.seed),
            pruner=self.way.pruner(),
        )
        trial = Trial(study, number)
        params = self.way.suggest(trial)
        seen_E, mean_E = self.world.curve(params, self._draw)
        seconds = float(self.world.surrogate.seconds([params])[0])
        self._trials[number] = SimulatedTrial(number=number, trial=trial, seen_E=seen_E, mean_E=mean_E, seconds=seconds)
        return self._trials[number]

    def _continues(self, current: SimulatedTrial) -> bool:
        """Report an epoch; return whether the trial continues."""
        current.done += 1
        value = float(current.seen_E[current.done - 1])
        current.trial.report(value, step=current.done)
        if current.done == len(current.seen_E):
            current.trial.study.tell(current.trial, value)
            self.storage.end(current.number, finished=True)
            return False
        halving = self.way.halving
        if halving is None:
            is_over = current.trial.should_prune()
        else:
            is_over = current.done in halving.rungs and not halving.passes(self._frozen(), current.number, current.done)
            if is_over:
                self.storage.set_trial_system_attr(current.number, PAUSED_KEY, current.done)
        if is_over:
            current.trial.study.tell(current.trial, state=TrialState.PRUNED)
            self.storage.end(current.number, finished=True)
        return not is_over

    def _frozen(self) -> list[FrozenTrial]:
        return self.storage.get_all_trials(0, deepcopy=False)

    def _reopen(self, number: int) -> None:
        """Let a paused trial run again, as a claim does."""
        before = self.storage.get_trial(number)
        trial = optuna.trial.create_trial(
            state=TrialState.RUNNING, params=before.params, distributions=before.distributions
        )
        trial.number, trial._trial_id, trial.datetime_start = number, number, before.datetime_start
        self._put(trial)
        for step, value in before.intermediate_values.items():
            self.storage.set_trial_intermediate_value(number, step, value)

    def _put(self, trial: FrozenTrial) -> None:
        with self.storage._lock:
            self.storage._trials[trial.number] = trial
            self.storage._sorted = None
            self.storage._running += 1
        assert self.storage.begin(trial.number)


def steps(found: Iterator[Found], at: NDArray[np.int64]) -> Array:
    """Return the accuracy found by each number of epochs in `at`; 0.1 before anything is."""
    accuracies, known = np.full(len(at), 0.1), list(found)
    for first, second in itertools.zip_longest(known, known[1:]):
        end = np.inf if second is None else second.epochs
        accuracies[(at >= first.epochs) & (at < end)] = first.accuracy
    return accuracies
