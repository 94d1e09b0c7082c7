"""The database that holds the studies: its URL, its settings, its errors. Knows nothing of what a study is.

As optuna opens SQLite, several processes spoil each other's work: they read, then write, and find the database locked
or a trial taken. So every transaction here begins as a writer (BEGIN IMMEDIATE) and waits for its turn, and the
write-ahead log keeps a commit cheap.
"""

import os
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, OperationalError, SQLAlchemyError

from kmnist_search.errors import StorageError

BUSY_TIMEOUT_SECONDS = 60.0
OPENING_ATTEMPTS = 20

#: What a database in trouble raises, by way of optuna or directly.
DATABASE_ERRORS = (SQLAlchemyError, StorageInternalError)


def _on_connect(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself: _on_begin does
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")


def _on_begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


@dataclass(frozen=True, eq=False)
class Storage:
    """An open database. `rdb` is optuna's view of it; `engine` the connections that both use."""

    url: URL
    rdb: RDBStorage

    @property
    def engine(self) -> Engine:
        return self.rdb.engine

    @property
    def shown_url(self) -> str:
        """The URL without a password."""
        return self.url.render_as_string(hide_password=True)

    @property
    def checkpoint_dir(self) -> Path:
        """Folder beside the database for the checkpoints of its trials."""
        assert self.url.database is not None
        return Path(self.url.database).with_suffix(".checkpoints")


def open_storage(url: str, *, create: bool) -> Storage:
    """Open the database at `url`, making it if `create` is true.

    Raises:
        StorageError: the URL is not of a kind this package can use, the database is not there, cannot be opened, or
            is something else.
    """
    parsed = check_url(url)
    assert parsed.database is not None
    path = Path(parsed.database)
    if not create and not path.exists():
        raise StorageError(
            f"there is no database at {path.resolve()}. Start a search with: kmnist-search run quickstart, "
            "or name another one with --storage (KMNIST_SEARCH_STORAGE)."
        )
    if not path.parent.is_dir():
        raise StorageError(f"the folder of {path.resolve()} does not exist. Make it, or use another --storage.")
    for place in (path, path.parent):
        if place.exists() and not os.access(place, os.W_OK):
            raise StorageError(
                f"{place.resolve()} is read-only for you, and SQLite writes even to read a study. "
                "Copy the database to a folder of your own, or mend the permissions."
            )
    try:
        return Storage(parsed, _open(parsed))
    except (*DATABASE_ERRORS, sqlite3.Error) as error:
        reason = getattr(error, "orig", None) or error.__cause__ or error
        raise StorageError(f"{path.resolve()} cannot be used as a database: {reason}.") from None
    except RuntimeError as error:
        if "table schema" not in str(error):  # what optuna says of tables of another version
            raise
        raise StorageError(f"{path.resolve()}: {error}") from None


def check_url(url: str) -> URL:
    """Return the URL taken apart.

    Raises:
        StorageError: it is no URL, or not of a kind this package can use.
    """
    example = "sqlite:///kmnist-search.db" if "://" in url else f"sqlite:///{url}"
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise StorageError(f"{url!r} is not a database URL; write it like {example}") from None
    if parsed.get_backend_name() != "sqlite":
        raise StorageError(f"{parsed.drivername} databases are not supported; use SQLite, like {example}")
    if parsed.host:
        raise StorageError(f"{url!r} has too few slashes: a file is written sqlite:///{parsed.host}")
    if parsed.database in (None, "", ":memory:"):
        raise StorageError(f"a search needs a database that lasts: name a file, like {example}")
    return parsed


def _open(url: URL) -> RDBStorage:
    """Open the database; when processes make it at the same moment, the slower ones find it made."""
    for attempt in range(1, OPENING_ATTEMPTS + 1):
        try:
            rdb = RDBStorage(
                url.render_as_string(hide_password=False),
                engine_kwargs={"connect_args": {"timeout": BUSY_TIMEOUT_SECONDS}},
            )
            break
        except (OperationalError, IntegrityError, StorageInternalError) as error:
            cause = str(error.__cause__ or error)
            if attempt == OPENING_ATTEMPTS or not any(word in cause for word in ("already exists", "locked", "UNIQUE")):
                raise
            time.sleep(0.1)
    # Only now: while optuna makes its tables it reads in one connection and writes in another.
    event.listen(rdb.engine, "connect", _on_connect)
    event.listen(rdb.engine, "begin", _on_begin)
    rdb.engine.dispose()
    return rdb
