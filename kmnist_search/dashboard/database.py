"""The database behind the dashboard, opened when it is there and again when it is back.

Every error is raised as one of this package's, with a message for the page.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.engine import URL, Connection

from kmnist_search.database.errors import DATABASE_ERRORS, is_forbidden, is_passing, reason_of
from kmnist_search.database.storage import Storage, open_storage
from kmnist_search.database.url import check_url, shown
from kmnist_search.errors import ReadOnlyError, StorageAwayError, StorageEmptyError, StorageError

#: A database that failed is not asked again for this long, so that waiting browsers do not wait one after the other.
PAUSE_SECONDS = 1.0
#: A server that has not answered for this long counts as away.
SILENCE_SECONDS = 20.0

logger = logging.getLogger(__name__)


class Database:
    """A database that may be away, or not made yet. Thread-safe.

    Raises:
        StorageError: the URL is not one of a database.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._parsed: URL = check_url(url)
        self._lock = threading.Lock()
        self._storage: Storage | None = None
        self._file: tuple[int, int] | None = None
        self._error: StorageError | None = None
        self._silent_until = 0.0

    @property
    def shown_url(self) -> str:
        """The URL without a password."""
        return shown(self._parsed)

    @contextmanager
    def opened(self) -> Iterator[Storage]:
        """The open database.

        Raises:
            StorageAwayError: it cannot be reached now.
            StorageEmptyError: it does not exist, or holds no studies.
            StorageError: it cannot be opened for another reason.
            ReadOnlyError: the user may not make the change.
        """
        with self._lock:
            storage = self._opened()
        try:
            with storage.time_limit(SILENCE_SECONDS):
                yield storage
        except DATABASE_ERRORS as error:
            if is_forbidden(error):
                raise ReadOnlyError(f"{self.shown_url} does not let this dashboard change it.") from error
            if not is_passing(error):
                raise
            storage.disconnect()
            away = StorageAwayError(f"{self.shown_url} cannot be reached now: {reason_of(error)}.")
            with self._lock:
                self._record(away)
            raise away from error
        with self._lock:
            self._record(None)

    @contextmanager
    def reading(self) -> Iterator[tuple[Storage, Connection]]:
        """The open database and a transaction that reads; raises what `opened` raises."""
        with self.opened() as storage, storage.reading() as connection:
            yield storage, connection

    def _opened(self) -> Storage:
        if self._error is not None and time.monotonic() < self._silent_until:
            raise type(self._error)(str(self._error))
        if self._storage is not None and self._file != self._file_now():
            self._storage.disconnect()
            self._storage = None
        if self._storage is None:
            try:
                self._storage = open_storage(self._url, create=False)
            except StorageError as error:
                self._record(error)
                raise
            self._file = self._file_now()
        return self._storage

    def _file_now(self) -> tuple[int, int] | None:
        """Return device and inode of the SQLite file, which tell it from a new one of its name; None for none."""
        if self._parsed.get_backend_name() != "sqlite":
            return None
        try:
            status = Path(self._parsed.database or "").stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _record(self, error: StorageError | None) -> None:
        """Note whether the database answered, and log it if that has changed."""
        if error is not None:
            self._silent_until = time.monotonic() + PAUSE_SECONDS
            if self._error is None and not isinstance(error, StorageEmptyError):
                logger.warning("%s The dashboard shows this message until the database answers again.", error)
        elif self._error is not None:
            logger.warning("%s answers again.", self.shown_url)
        self._error = error
