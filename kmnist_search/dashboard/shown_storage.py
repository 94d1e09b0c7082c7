"""The storage that optuna-dashboard is given: reads without holding anybody up, and no more often than is worth it.

Optuna's own storage reads a study of 5,000 trials in 4 s whenever it is asked, and on SQLite nobody can write
meanwhile. This one keeps the studies that were looked at last, and asks only for what may have changed.
"""

import copy
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Connection

from kmnist_search.dashboard.database import Database
from kmnist_search.dashboard.picture import Picture, read_studies
from kmnist_search.database.storage import Storage
from kmnist_search.errors import ReadOnlyError, StorageEmptyError, StorageError
from kmnist_search.optuna_internals import FrozenStudy, study_id_of

#: What was read is shown for so long; for longer where reading takes so much that it would keep more of a core busy.
FRESH_SECONDS = 2.0
READING_SHARE = 0.003
#: But no longer than the page waits between two polls.
MAX_FRESH_SECONDS = 10.0
#: Studies kept. One of 5,000 trials takes some 100 MB with what is sent of it.
MAX_PICTURES = 4


class _Trouble(threading.local):
    error: StorageError | None = None


class ShownStorage(BaseStorage):
    """A storage for a server: any thread may ask, one of them reads while the others wait for what it finds.

    Args:
        database: what is read.
        is_read_only: whether every change is refused, whoever asks for it.

    Attributes:
        on_forgotten: called when what was kept of studies is no longer true.
    """

    def __init__(self, database: Database, *, is_read_only: bool = False) -> None:
        self.database, self._is_read_only = database, is_read_only
        self.on_forgotten: Callable[[], None] = lambda: None
        self._lock = threading.RLock()
        self._storage: Storage | None = None
        self._studies: list[FrozenStudy] = []
        self._studies_fresh_until = 0.0
        self._pictures: OrderedDict[int, tuple[Picture, float]] = OrderedDict()
        self._trouble = _Trouble()

    # What this package asks for

    @property
    def trouble(self) -> StorageError | None:
        """What went wrong with the database since this thread last called `forget_trouble`.

        optuna-dashboard answers any error with "internal server error", so it is kept here for whoever can say more.
        """
        return self._trouble.error

    def forget_trouble(self) -> None:
        self._trouble.error = None

    def picture(self, study_id: int) -> Picture:
        """Return a study with its trials as they are now.

        Raises:
            KeyError: there is no such study.
            StorageError: the database cannot be asked.
        """
        with self._lock:
            picture, fresh_until = self._pictures.get(study_id, (None, 0.0))
            if picture is None or time.monotonic() >= fresh_until:
                started = time.thread_time()
                picture = self._read_picture(study_id)
                self._pictures[study_id] = picture, _fresh_until(started)
            self._pictures.move_to_end(study_id)
            while len(self._pictures) > MAX_PICTURES:
                self._pictures.popitem(last=False)
                self.on_forgotten()
        return picture

    def _read_picture(self, study_id: int) -> Picture:
        with self._reading() as connection:
            self._studies = read_studies(connection)
            self._studies_fresh_until = time.monotonic() + FRESH_SECONDS
            found = [study for study in self._studies if study_id_of(study) == study_id]
            if not found:
                if self._pictures.pop(study_id, None):
                    self.on_forgotten()
                raise KeyError(f"no study has the id {study_id}")
            if study_id not in self._pictures:
                return Picture(connection, found[0])
            picture, _ = self._pictures[study_id]
            name = picture.name
            picture.update(connection, found[0])
            if picture.name != name:
                self.on_forgotten()
            return picture

    def _study(self, study_id: int) -> FrozenStudy:
        for study in self.get_all_studies():
            if study_id_of(study) == study_id:
                return study
        raise KeyError(f"no study has the id {study_id}")

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._noting_trouble(), self.database.reading() as (storage, connection):
            if storage is not self._storage:  # another database, or the file is another one
                self._storage = storage
                self._forget()
            yield connection

    @contextmanager
    def _changing(self) -> Iterator[RDBStorage]:
        try:
            with self._noting_trouble():
                if self._is_read_only:
                    raise ReadOnlyError("This dashboard is read-only, so nothing was changed.")
                with self.database.opened() as storage:
                    yield storage.rdb
        finally:
            with self._lock:
                self._studies_fresh_until = 0.0
                self._pictures = OrderedDict((key, (each, 0.0)) for key, (each, _) in self._pictures.items())

    @contextmanager
    def _noting_trouble(self) -> Iterator[None]:
        try:
            yield
        except StorageError as error:
            self._trouble.error = error
            raise

    def _forget(self) -> None:
        self._studies_fresh_until = 0.0
        self._pictures.clear()
        self.on_forgotten()

    # What optuna-dashboard reads

    def get_all_studies(self) -> list[FrozenStudy]:
        with self._lock:
            if time.monotonic() >= self._studies_fresh_until:
                started = time.thread_time()
                try:
                    with self._reading() as connection:
                        self._studies = read_studies(connection)
                except StorageEmptyError:
                    self._studies = []
                    self.forget_trouble()
                self._studies_fresh_until = _fresh_until(started)
            return self._studies

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        trials = [trial for trial in self.picture(study_id).trials if states is None or trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def get_trial(self, trial_id: int) -> FrozenTrial:
        with self._lock:
            for picture, fresh_until in self._pictures.values():
                trial = picture.trial(trial_id)
                if trial is not None and (trial.state.is_finished() or time.monotonic() < fresh_until):
                    return trial
        with self._noting_trouble(), self.database.opened() as storage:
            return storage.rdb.get_trial(trial_id)

    def get_study_id_from_name(self, study_name: str) -> int:
        for study in self.get_all_studies():
            if study.study_name == study_name:
                return int(study_id_of(study))
        raise KeyError(f"no study has the name {study_name}")

    def get_study_name_from_id(self, study_id: int) -> str:
        return str(self._study(study_id).study_name)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return list(self._study(study_id).directions)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return dict(self._study(study_id).user_attrs)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return dict(self._study(study_id).system_attrs)

    # What optuna-dashboard changes

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        with self._changing() as rdb:
            return rdb.create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        with self._changing() as rdb:
            rdb.delete_study(study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        with self._changing() as rdb:
            rdb.set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        with self._changing() as rdb:
            rdb.set_study_system_attr(study_id, key, value)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        with self._changing() as rdb:
            return rdb.create_new_trial(study_id, template_trial)

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        with self._changing() as rdb:
            rdb.set_trial_param(trial_id, param_name, param_value_internal, distribution)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        with self._changing() as rdb:
            return rdb.set_trial_state_values(trial_id, state, values)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        with self._changing() as rdb:
            rdb.set_trial_intermediate_value(trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        with self._changing() as rdb:
            rdb.set_trial_user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        with self._changing() as rdb:
            rdb.set_trial_system_attr(trial_id, key, value)


def _fresh_until(started: float) -> float:
    """Return until when what was read is shown, if this thread had worked so long by then that reading began."""
    fresh = (time.thread_time() - started) / READING_SHARE
    return time.monotonic() + min(max(FRESH_SECONDS, fresh), MAX_FRESH_SECONDS)
