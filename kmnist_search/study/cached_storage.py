"""The cached storage: one study in memory, as an Optuna storage that samplers and pruners read.

Samplers and pruners read the whole study often and write one value at a time. This storage answers from the last known
state of other trials, and collects the changes of its own trials until they are written to the database.
"""

import copy
import threading
from collections.abc import Collection, Container, Iterable, Sequence
from datetime import datetime
from typing import Any, NoReturn

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Connection

from kmnist_search.database.trial_reader import read_trials
from kmnist_search.database.trial_writer import Changes
from kmnist_search.optuna_internals import trial_id_of
from kmnist_search.queue.queue import resumed

#: A transaction that began earlier may commit later: so many attributes are looked at again.
TOLD_LATE = 1000


class CachedStorage(BaseStorage):
    """The running and finished trials of one study.

    `read_news` adds trials of other processes. `begin` adds trials of this process; after that, only `end` and the
    trial's own changes touch them. Several threads may use it, but only one may read the news.

    With `pauses`, trials that finished by pausing may resume.
    """

    #: Hyperband assigns trials to brackets by trial number and this name, so renaming the study must not change it.
    NAME = "study"

    def __init__(self, study_id: int, direction: StudyDirection, *, pauses: bool = False) -> None:
        self.study_id, self.direction, self.pauses = study_id, direction, pauses
        self._lock = threading.RLock()
        self._trials: dict[int, FrozenTrial] = {}
        self._sorted: list[FrozenTrial] | None = []
        self._changes: dict[int, Changes] = {}
        self._running = 0
        self._unknown_since = 0  # all trials with a lower id are finished and were read
        self._finished: set[int] = set()  # trials with a higher id that are finished and were read
        self._resumed: set[int] = set()  # trials that run again after they were read as finished
        self._told: set[int] = set()  # the latest attributes that have told so

    # For the worker

    def read_news(
        self, connection: Connection, *, complete_until: int | None = None, with_reports: bool = True
    ) -> Sequence[FrozenTrial]:
        """Read the trials that run or have finished since the last call, and return them by number.

        Args:
            connection: in a transaction.
            complete_until: an id. Waiting trials below it are read, too; once all trials below it are finished, they
                are not read again.
            with_reports: whether to read the reports of finished trials.
        """
        if self.pauses:
            self._find_resumed(connection)
        with self._lock:
            own = list(self._changes)
        news = read_trials(
            connection,
            self.study_id,
            since=self._unknown_since,
            also=self._resumed,
            without=self._finished,
            waiting_before=complete_until or 0,
            with_reports=with_reports,
        )
        self._mark_finished(news, complete_until, own)
        self._take_in(news)
        return news

    def _find_resumed(self, connection: Connection) -> None:
        """Find out which trials that were read as finished run again."""
        told = resumed(connection, self.study_id, since=max(self._told, default=0) - TOLD_LATE)
        found = {trial_id for attribute, trial_id in told.items() if attribute not in self._told}
        self._told = set(told)
        self._resumed |= found
        self._finished -= found

    def _mark_finished(self, news: Sequence[FrozenTrial], complete_until: int | None, own: Collection[int]) -> None:
        """Do not read finished trials again, except this process's own, which it may yet give back."""
        self._finished.update(trial_id_of(trial) for trial in news if trial.state.is_finished())
        self._finished.difference_update(own)
        self._resumed -= self._finished
        if complete_until is not None:
            still_open = [trial_id_of(trial) for trial in news if not trial.state.is_finished()]
            self._unknown_since = min([complete_until, *({*own, *still_open} - self._resumed)])
            self._finished = {each for each in self._finished if each >= self._unknown_since}

    def _take_in(self, news: Iterable[FrozenTrial]) -> None:
        """Replace the running trials of others; one that is not in the news any more is waiting again."""
        with self._lock:
            known = dict(self._trials)
            for gone in [key for key, trial in self._trials.items() if self._is_others(key, trial)]:
                del self._trials[gone]
            for trial in news:
                key = trial_id_of(trial)
                if trial.state != TrialState.WAITING and key not in self._changes:
                    if key in self._resumed and key in known:  # the reports of running trials are not read
                        trial.intermediate_values = known[key].intermediate_values
                    self._trials[key] = trial
            self._sorted = None
            self._running = sum(trial.state == TrialState.RUNNING for trial in self._trials.values())

    def begin(self, trial_id: int) -> bool:
        """Mark a trial from the last news as this process's own; return False if the news did not contain it."""
        with self._lock:
            if trial_id not in self._trials:
                return False
            self._changes[trial_id] = Changes()
            self._copy_to_change(trial_id).intermediate_values = {}  # the claim deleted the reports
            return True

    def end(self, trial_id: int, *, finished: bool) -> None:
        """Stop treating a trial as this process's own: it is finished, back in the queue, or another worker has it."""
        with self._lock:
            del self._changes[trial_id]
            if finished:
                self._finished.add(trial_id)
            else:
                self._finished.discard(trial_id)
                del self._trials[trial_id]
                self._sorted = None

    def num_running(self) -> int:
        """Return the number of running trials, as far as is known."""
        with self._lock:
            return self._running

    def has_changes(self) -> bool:
        """Return whether trials of this process have changes that nobody has taken."""
        with self._lock:
            return any(self._changes.values())

    def take_changes(self, trial_id: int) -> Changes:
        """Return the changes of an own trial since the last call, and its ending if it has one.

        The ending is kept, because only the caller that ends the trial writes it.
        """
        with self._lock:
            changes = self._changes[trial_id]
            self._changes[trial_id] = Changes(ending=changes.ending)
            return changes

    def _is_others(self, trial_id: int, trial: FrozenTrial) -> bool:
        return trial.state == TrialState.RUNNING and trial_id not in self._changes

    # For samplers, pruners and Optuna's trials

    def get_study_id_from_name(self, study_name: str) -> int:
        return self.study_id

    def get_study_name_from_id(self, study_id: int) -> str:
        return self.NAME

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return [self.direction]

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return {}

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return {}

    def get_trial(self, trial_id: int) -> FrozenTrial:
        with self._lock:
            return self._trials[trial_id]

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        for trial in self.get_all_trials(study_id, deepcopy=False):
            if trial.number == trial_number:
                return trial_id_of(trial)
        raise KeyError(trial_number)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        with self._lock:
            if self._sorted is None:
                self._sorted = sorted(self._trials.values(), key=lambda trial: trial.number)
            trials = [trial for trial in self._sorted if states is None or trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        with self._lock:
            trial = self._copy_to_change(trial_id)
            trial.params = {**trial.params, param_name: distribution.to_external_repr(param_value_internal)}
            trial.distributions = {**trial.distributions, param_name: distribution}
            self._changes[trial_id].params[param_name] = (param_value_internal, distribution)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        with self._lock:
            trial = self._copy_to_change(trial_id)
            trial.intermediate_values = {**trial.intermediate_values, step: intermediate_value}
            self._changes[trial_id].reports[step] = intermediate_value

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        with self._lock:
            trial = self._copy_to_change(trial_id)
            trial.user_attrs = {**trial.user_attrs, key: value}
            self._changes[trial_id].user_attributes[key] = value

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        with self._lock:
            trial = self._copy_to_change(trial_id)
            trial.system_attrs = {**trial.system_attrs, key: value}
            self._changes[trial_id].system_attributes[key] = value

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        with self._lock:
            trial = self._copy_to_change(trial_id)
            trial.state = state
            if values is not None:
                trial.values = list(values)
            if state.is_finished():
                trial.datetime_complete = datetime.now()
                self._changes[trial_id].ending = (state, values or ())
        return True

    def _copy_to_change(self, trial_id: int) -> FrozenTrial:
        """Replace an own trial by a copy and return the copy, so that earlier readers see no change."""
        self.check_trial_is_updatable(trial_id, self._trials[trial_id].state)
        if trial_id not in self._changes:
            raise RuntimeError(f"trial id {trial_id} is not this process's to change")
        trial = copy.copy(self._trials[trial_id])
        self._trials[trial_id] = trial
        self._sorted = None
        return trial

    def _refuse(self, *_args: Any, **_options: Any) -> NoReturn:
        raise RuntimeError("only the database can do this; the cached storage holds the trials of one study")

    create_new_study: Any = _refuse
    delete_study: Any = _refuse
    set_study_user_attr: Any = _refuse
    set_study_system_attr: Any = _refuse
    get_all_studies: Any = _refuse
    create_new_trial: Any = _refuse
