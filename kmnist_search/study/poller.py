"""The poller: reads the state of a study again and again, and recovers trials whose worker is gone."""

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

#: How often to look; a large study, which takes longer to read, is looked at less often.
LOOK_SECONDS = 2.0
#: The share of the time that may be spent with looking.
LOOKING_SHARE = 0.1
#: How often to put back what lost its worker, which is a transaction that writes.
RECOVER_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Away:
    """The database cannot be used at the moment, and why."""

    reason: str


class Poller:
    """Looks at one study; of the trials it has seen to their end it reads nothing again."""

    def __init__(self, study: SearchStudy) -> None:
        self.study = study
        self._cached_storage = CachedStorage(study.queue.study_id, study.direction)
        self._known_until = 0
        self._recover_at = float("-inf")

    def looks(self, pause: Callable[[float], object] = time.sleep) -> Iterator[Status | Away]:
        """Yield for ever how the study stands, or why that cannot be seen now.

        Args:
            pause: waits for so many seconds.

        Raises:
            StudyNotFoundError: the study was deleted.
            SQLAlchemyError: the database failed, and will not answer when it is asked again.
        """
        while True:
            started = time.monotonic()
            seen = self._look()
            took = time.monotonic() - started
            yield seen
            pause(max(LOOK_SECONDS, took / LOOKING_SHARE))

    def _look(self) -> Status | Away:
        try:
            with self.study.storage.answering_within(SILENCE_SECONDS):
                self._recover_if_due()
                return self._status()
        except DATABASE_ERRORS as error:
            if not is_passing(error):
                raise
            return Away(reason=reason_of(error))
        finally:
            self.study.storage.let_go()

    def _recover_if_due(self) -> None:
        """Put back what lost its worker, if this user may: whoever only reads sees the study all the same."""
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
