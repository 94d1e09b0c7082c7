"""The storage that optuna-dashboard works on: a cache of the studies that were looked at last.

Optuna's own storage reads a study of 5,000 trials in 4 s, each time, and on SQLite nobody can write meanwhile. This one
blocks no writer, reads only what may have changed, and reads large studies less often.
"""

import copy
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from typing import Any

from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Connection

from kmnist_search.dashboard.cached_study import CachedStudy, read_studies
from kmnist_search.dashboard.database import Database
from kmnist_search.database.storage import Storage
from kmnist_search.errors import ReadOnlyError, StorageEmptyError, StorageError
from kmnist_search.optuna_internals import FrozenStudy, study_id_of

#: Seconds until a study is read again; more if reading would otherwise keep more than READING_SHARE of a core busy.
FRESH_SECONDS = 2.0
READING_SHARE = 0.003
#: At most this long, which the page waits between two polls.
MAX_FRESH_SECONDS = 10.0
#: Studies in the cache. One of 5,000 trials takes 100 MB.
MAX_STUDIES = 4


class _Error(threading.local):
    error: StorageError | None = None


def _change(name: str) -> Any:
    """Return a method that calls the method `name` of optuna's storage, if changes are allowed."""

    def change(self: "DashboardStorage", *args: Any, **kwargs: Any) -> Any:
        with self._changing() as rdb:
            return getattr(rdb, name)(*args, **kwargs)

    return change


class DashboardStorage(BaseStorage):
    """A thread-safe storage: one thread reads, and the others wait for what it finds.

    Args:
        database: the database to read.
        is_read_only: whether every change is refused.

    Attributes:
        on_forgotten: called when a study is dropped from the cache or replaced, so that others drop it, too.
    """

    def __init__(self, database: Database, *, is_read_only: bool = False) -> None:
        self.database, self._is_read_only = database, is_read_only
        self.on_forgotten: Callable[[], None] = lambda: None
        self._lock = threading.RLock()
        self._storage: Storage | None = None
        self._studies: list[FrozenStudy] = []
        self._studies_fresh_until = 0.0
        self._cached: OrderedDict[int, tuple[CachedStudy, float]] = OrderedDict()
        self._last = _Error()

    # For this package

    @property
    def error(self) -> StorageError | None:
        """The last error in this thread since it called `forget_error`.

        optuna-dashboard answers every error with "internal server error", so `StorageErrorPages` asks here.
        """
        return self._last.error

    def forget_error(self) -> None:
        self._last.error = None

    def study(self, study_id: int) -> CachedStudy:
        """Return a study with its trials, read again if it was read too long ago.

        Raises:
            KeyError: there is no such study.
            StorageError: the database cannot be read.
        """
        with self._lock:
            cached, fresh_until = self._cached.get(study_id, (None, 0.0))
            if cached is None or time.monotonic() >= fresh_until:
                started = time.thread_time()
                cached = self._read_study(study_id)
                self._cached[study_id] = cached, _fresh_until(started)
            self._cached.move_to_end(study_id)
            while len(self._cached) > MAX_STUDIES:
                self._cached.popitem(last=False)
                self.on_forgotten()
        return cached

    def _read_study(self, study_id: int) -> CachedStudy:
        with self._reading() as connection:
            self._studies = read_studies(connection)
            self._studies_fresh_until = time.monotonic() + FRESH_SECONDS
            found = [study for study in self._studies if study_id_of(study) == study_id]
            if not found:
                if self._cached.pop(study_id, None):
                    self.on_forgotten()
                raise KeyError(f"no study has the id {study_id}")
            if study_id not in self._cached:
                return CachedStudy(connection, found[0])
            cached, _ = self._cached[study_id]
            name = cached.name
            cached.update(connection, found[0])
            if cached.name != name:
                self.on_forgotten()
            return cached

    def _frozen_study(self, study_id: int) -> FrozenStudy:
        for study in self.get_all_studies():
            if study_id_of(study) == study_id:
                return study
        raise KeyError(f"no study has the id {study_id}")

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._noting_errors(), self.database.reading() as (storage, connection):
            if storage is not self._storage:  # the database was opened again, and may be another one
                self._storage = storage
                self._forget()
            yield connection

    @contextmanager
    def _changing(self) -> Iterator[RDBStorage]:
        try:
            with self._noting_errors():
                if self._is_read_only:
                    raise ReadOnlyError("This dashboard is read-only, so nothing was changed.")
                with self.database.opened() as storage:
                    yield storage.rdb
        finally:
            with self._lock:
                self._studies_fresh_until = 0.0
                self._cached = OrderedDict((key, (each, 0.0)) for key, (each, _) in self._cached.items())

    @contextmanager
    def _noting_errors(self) -> Iterator[None]:
        try:
            yield
        except StorageError as error:
            self._last.error = error
            raise

    def _forget(self) -> None:
        self._studies_fresh_until = 0.0
        self._cached.clear()
        self.on_forgotten()

    # For optuna-dashboard: reading

    def get_all_studies(self) -> list[FrozenStudy]:
        with self._lock:
            if time.monotonic() >= self._studies_fresh_until:
                started = time.thread_time()
                try:
                    with self._reading() as connection:
                        self._studies = read_studies(connection)
                except StorageEmptyError:
                    self._studies = []
                    self.forget_error()
                self._studies_fresh_until = _fresh_until(started)
            return self._studies

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        trials = [trial for trial in self.study(study_id).trials if states is None or trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def get_trial(self, trial_id: int) -> FrozenTrial:
        with self._lock:
            for cached, fresh_until in self._cached.values():
                trial = cached.trial(trial_id)
                if trial is not None and (trial.state.is_finished() or time.monotonic() < fresh_until):
                    return trial
        with self._noting_errors(), self.database.opened() as storage:
            return storage.rdb.get_trial(trial_id)

    def get_study_id_from_name(self, study_name: str) -> int:
        for study in self.get_all_studies():
            if study.study_name == study_name:
                return int(study_id_of(study))
        raise KeyError(f"no study has the name {study_name}")

    def get_study_name_from_id(self, study_id: int) -> str:
        return str(self._frozen_study(study_id).study_name)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return list(self._frozen_study(study_id).directions)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return dict(self._frozen_study(study_id).user_attrs)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return dict(self._frozen_study(study_id).system_attrs)

    # For optuna-dashboard: changes

    create_new_study = _change("create_new_study")
    delete_study = _change("delete_study")
    set_study_user_attr = _change("set_study_user_attr")
    set_study_system_attr = _change("set_study_system_attr")
    create_new_trial = _change("create_new_trial")
    set_trial_param = _change("set_trial_param")
    set_trial_state_values = _change("set_trial_state_values")
    set_trial_intermediate_value = _change("set_trial_intermediate_value")
    set_trial_user_attr = _change("set_trial_user_attr")
    set_trial_system_attr = _change("set_trial_system_attr")


def _fresh_until(started: float) -> float:
    """Return until when a study need not be read again; reading began at `started` (CPU time of the thread)."""
    fresh = (time.thread_time() - started) / READING_SHARE
    return time.monotonic() + min(max(FRESH_SECONDS, fresh), MAX_FRESH_SECONDS)
