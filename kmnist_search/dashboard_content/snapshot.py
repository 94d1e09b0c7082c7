"""A snapshot of a study: all data for its note and plots."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from sqlalchemy.engine import Connection

from kmnist_search.charts.trials import TRIALS_AT_ONCE
from kmnist_search.database.trial_reader import read_attributes
from kmnist_search.database.trial_writer import REASON_KEY
from kmnist_search.optuna_internals import trial_id_of
from kmnist_search.queue.attempts import ATTEMPTS_KEY
from kmnist_search.queue.queue import Counts
from kmnist_search.queue.workers import RegisteredWorker
from kmnist_search.study.cached_storage import CachedStorage
from kmnist_search.study_file.schema import StudyFile

#: The trial attributes to read; curves and configurations would be many times larger.
SHOWN_KEYS = ("seconds", "num_parameters", "device", REASON_KEY, ATTEMPTS_KEY)


@dataclass(frozen=True, eq=False, kw_only=True)
class Images:
    """The numbers of training and validation images of a study, and the digest of both."""

    train: int
    val: int
    digest: str


@dataclass(frozen=True, eq=False, kw_only=True)
class Snapshot:
    """A study at one moment.

    Attributes:
        storage_url: without a password.
        images: None if each training has its own.
        budget: number of trials to finish.
        trials: running and finished ones, with the attributes `SHOWN_KEYS`.
        ranked: the complete ones, best first.
        workers: of the study.
        at: the moment, with time zone.
    """

    name: str
    storage_url: str
    file: StudyFile
    images: Images | None
    budget: int
    counts: Counts
    trials: Sequence[FrozenTrial]
    ranked: Sequence[FrozenTrial]
    workers: Sequence[RegisteredWorker]
    at: datetime

    @property
    def direction(self) -> StudyDirection:
        return StudyDirection[self.file.study.direction.upper()]


class TrialCache:
    """The trials of a cached storage with the shown attributes; those of a trial are read once for each of its ends."""

    def __init__(self, cached_storage: CachedStorage) -> None:
        self._cached_storage = cached_storage
        self._finished: dict[int, FrozenTrial] = {}

    def trials(self, connection: Connection) -> list[FrozenTrial]:
        """Return the running and finished trials by number, as the cached storage knows them."""
        seen = self._cached_storage.get_all_trials(self._cached_storage.study_id, deepcopy=False)
        known = {key: trial.datetime_complete for key, trial in self._finished.items()}
        missing = [trial for trial in seen if known.get(trial_id_of(trial), ...) != trial.datetime_complete]
        read: dict[int, FrozenTrial] = {}
        for start in range(0, len(missing), TRIALS_AT_ONCE):
            read.update(_with_attributes(connection, missing[start : start + TRIALS_AT_ONCE]))
        self._finished.update({key: trial for key, trial in read.items() if _is_settled(trial)})
        return [read.get(trial_id_of(trial)) or self._finished[trial_id_of(trial)] for trial in seen]


def _with_attributes(connection: Connection, trials: Sequence[FrozenTrial]) -> dict[int, FrozenTrial]:
    """Return copies of trials with their attributes, by id, so that the cached storage's own stay unchanged."""
    copies = {trial_id_of(trial): copy.copy(trial) for trial in trials}
    for trial_id, attributes in read_attributes(connection, copies.keys(), keys=SHOWN_KEYS).items():
        copies[trial_id].user_attrs = attributes
    return copies


def _is_settled(trial: FrozenTrial) -> bool:
    """Return whether the end of a trial is in the database; the cached storage knows it slightly earlier."""
    attempts = trial.user_attrs.get(ATTEMPTS_KEY)
    return trial.state.is_finished() and (not attempts or "how" in attempts[-1])
