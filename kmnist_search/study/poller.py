"""The poller: reads the status of a study repeatedly, and recovers trials whose worker is gone."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kmnist_search.database.errors import DATABASE_ERRORS, is_passing, reason_of
from kmnist_search.database.retry import SILENCE_SECONDS
from kmnist_search.errors import ReadOnlyError
from kmnist_search.optuna_internals import trial_id_of
from kmnist_search.study.cached_storage import CachedStorage
from kmnist_search.study.status import Status, status_from
from kmnist_search.study.study import SearchStudy

#: Seconds between two reads; a large study takes longer to read, so it is read less often.
READ_SECONDS = 2.0
#: The largest share of time spent on reading.
READING_SHARE = 0.1
#: Seconds between two recoveries of lost trials; each is a write transaction.
RECOVER_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Away:
    """The database is away, and why."""

    reason: str


class Poller:
    """Reads one study repeatedly; a finished trial is read only once."""

    def __init__(self, study: SearchStudy) -> None:
        self.study = study
        self._cached_storage = CachedStorage(study.queue.study_id, study.direction, pauses=study.pauses)
        self._known_until = 0
        self._recover_at = float("-inf")

    def statuses(self, pause: Callable[[float], object] = time.sleep) -> Iterator[Status | Away]:
        """Yield the status of the study forever, or why it cannot be read now.

        Args:
            pause: waits for so many seconds.

        Raises:
            StudyNotFoundError: the study was deleted.
            SQLAlchemyError: the database failed, and retrying does not help.
        """
        while True:
            started = time.monotonic()
            seen = self._read()
            took = time.monotonic() - started
            yield seen
            pause(max(READ_SECONDS, took / READING_SHARE))

    def _read(self) -> Status | Away:
        try:
            with self.study.storage.time_limit(SILENCE_SECONDS):
                self._recover_if_due()
                return self._status()
        except DATABASE_ERRORS as error:
            if not is_passing(error):
                raise
            return Away(reason=reason_of(error))
        finally:
            self.study.storage.disconnect()

    def _recover_if_due(self) -> None:
        """Recover trials of lost workers, if this user may write; a read-only user still sees the study."""
        if time.monotonic() < self._recover_at:
            return
        try:
            self.study.recover()
        except ReadOnlyError:
            self._recover_at = float("inf")
        else:
            self._recover_at = time.monotonic() + RECOVER_SECONDS

    def _status(self) -> Status:
        study, cached_storage = self.study, self._cached_storage
        with study.storage.reading() as connection:
            study.check_is_there(connection)
            counts = study.queue.counts(connection)
            news = cached_storage.read_news(connection, complete_until=self._known_until, with_reports=False)
        self._known_until = max((trial_id_of(trial) + 1 for trial in news), default=self._known_until)
        return status_from(study, counts, cached_storage.get_all_trials(cached_storage.study_id, deepcopy=False))
