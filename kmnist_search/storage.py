"""The database that holds the studies: opened, and how its connections behave. Knows nothing of what a study is.

As optuna opens SQLite, several processes spoil each other's work: they read, then write, and find the database locked
or a trial taken. So here every transaction that may write begins as a writer (BEGIN IMMEDIATE) and waits for its turn,
and the write-ahead log keeps a commit cheap. On Postgres an idle connection is checked before it is used, and one that
no longer answers is noticed.
"""

import os
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from optuna.storages import RDBStorage
from sqlalchemy import create_engine, event, inspect
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.exc import DBAPIError
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

from kmnist_search import tables
from kmnist_search.database_errors import DATABASE_ERRORS, OPENING_SECONDS, is_forbidden, is_race, reason_of
from kmnist_search.errors import ReadOnlyError, StorageError
from kmnist_search.storage_url import check_url, shown

BUSY_TIMEOUT_SECONDS = 60.0
#: A statement of ours that waits so long for a lock is tried again later, so that a lease can be renewed in between.
LOCK_TIMEOUT_SECONDS = 20
CONNECT_TIMEOUT_SECONDS = 10

_READING = "kmnist_search_reading"


@dataclass(frozen=True, eq=False)
class Storage:
    """An open database.

    Attributes:
        rdb: optuna's view of it.
        connections: to Postgres, that are open at the moment.
    """

    url: URL
    rdb: RDBStorage
    checkpoint_dir: Path
    connections: set[psycopg.Connection[Any]]

    @property
    def engine(self) -> Engine:
        """The connections, optuna's as well."""
        return self.rdb.engine

    @property
    def shown_url(self) -> str:
        """The URL without a password."""
        return shown(self.url)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that may change the database, all of it or nothing.

        Raises:
            ReadOnlyError: the user may not make this change.
        """
        try:
            with self.engine.begin() as connection:
                yield connection
        except DBAPIError as error:
            if not is_forbidden(error):
                raise
            raise ReadOnlyError(
                f"{self.shown_url} does not let you change it: {reason_of(error)}. Nothing was changed; "
                "use a role that may write."
            ) from error

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees the database as it is now and changes nothing; it makes no writer wait."""
        with self.engine.connect().execution_options(**{_READING: True}) as connection, connection.begin():
            yield connection

    @contextmanager
    def answering_within(self, seconds: float) -> Iterator[None]:
        """While entered, break the connections if it takes longer; what waits for an answer then fails as one away.

        What notices that a machine is gone does not notice a server that hangs while its machine still answers.
        SQLite needs none of this: it never waits for longer than its busy timeout.
        """
        watch = threading.Timer(seconds, self._break)
        watch.daemon = True
        watch.start()
        try:
            yield
        finally:
            watch.cancel()

    def _break(self) -> None:
        for connection in list(self.connections):
            try:
                with socket.socket(fileno=os.dup(connection.pgconn.socket)) as same:
                    same.shutdown(socket.SHUT_RDWR)
            except (OSError, psycopg.Error):
                continue  # it was closed at this moment

    def let_go(self) -> None:
        """Close the connections that are not in use; the next use opens one again."""
        self.engine.dispose()


def open_storage(url: str, *, create: bool, checkpoint_dir: Path | None = None) -> Storage:
    """Open the database at `url`.

    Args:
        url: of a SQLite file, or of a database on a Postgres server, which must exist there.
        create: make the SQLite file, and the tables, if they are not there.
        checkpoint_dir: folder for the checkpoints of trials; by default beside the SQLite file, and for Postgres
            `kmnist-search.checkpoints` in the current folder.

    Raises:
        StorageError: the URL is not of a kind this package can use, the database is not there, cannot be opened, or
            is something else.
    """
    parsed = check_url(url)
    if parsed.get_backend_name() == "sqlite":
        _check_file(Path(parsed.database or ""), create=create)
    try:
        rdb = _open(parsed, create=create)
        connections = _settle(rdb.engine)
    except (*DATABASE_ERRORS, sqlite3.Error) as error:
        raise StorageError(f"{shown(parsed)} cannot be used as a database: {reason_of(error)}.") from None
    except RuntimeError as error:
        if "table schema" not in str(error):  # what optuna says of tables of another version
            raise
        raise StorageError(f"{shown(parsed)}: {error}") from None
    return Storage(parsed, rdb, checkpoint_dir or _checkpoints_beside(parsed), connections)


def _check_file(path: Path, *, create: bool) -> None:
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


def _checkpoints_beside(url: URL) -> Path:
    if url.get_backend_name() == "sqlite":
        return Path(url.database or "").with_suffix(".checkpoints")
    return Path("kmnist-search.checkpoints")


def _open(url: URL, *, create: bool) -> RDBStorage:
    """Open the database; when processes make its tables at the same moment, the slower ones find them made."""
    complete_url = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")  # optuna formats it
    settings = _engine_settings(url)
    for attempt in Retrying(
        retry=retry_if_exception(is_race),
        stop=stop_after_delay(OPENING_SECONDS),
        wait=wait_random(0.05, 0.5),
        reraise=True,
    ):
        with attempt:
            made = url.get_backend_name() != "sqlite" and _has_tables(url, settings, create=create)
            rdb = RDBStorage(complete_url, engine_kwargs=settings, skip_table_creation=made)
    return rdb


def _settle(engine: Engine) -> set[psycopg.Connection[Any]]:
    """Set how connections behave from now on; return where those to Postgres are kept while they are open."""
    connections: set[psycopg.Connection[Any]] = set()
    if engine.dialect.name == "sqlite":
        # Only now: while optuna makes its tables it reads in one connection and writes in another.
        event.listen(engine, "connect", _on_sqlite_connect)
        event.listen(engine, "begin", _on_sqlite_begin)
    else:
        event.listen(engine, "connect", _on_postgres_connect)
        event.listen(engine, "connect", lambda connection, _record: connections.add(connection))
        event.listen(engine, "close", lambda connection, _record: connections.discard(connection))
        event.listen(engine, "close_detached", connections.discard)
    engine.dispose()
    return connections


def _has_tables(url: URL, settings: dict[str, Any], *, create: bool) -> bool:
    """Return whether all tables are there, which spares a worker to look for each of them.

    Raises:
        StorageError: there is none and none shall be made.
    """
    engine = create_engine(url, **settings)
    try:
        names = inspect(engine).get_table_names()
    finally:
        engine.dispose()
    if tables.studies.name not in names and not create:
        raise StorageError(
            f"{shown(url)} holds no studies yet. Start a search with: kmnist-search run quickstart --storage URL, "
            "or name another one with --storage (KMNIST_SEARCH_STORAGE)."
        )
    return tables.leases.name in names  # a server makes all tables in one transaction


def _engine_settings(url: URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {"pool_size": 1, "max_overflow": 1, "connect_args": {"timeout": BUSY_TIMEOUT_SECONDS}}
    return {
        "pool_size": 1,
        "max_overflow": 1,
        "pool_pre_ping": True,
        "pool_recycle": 300,
        "use_native_hstore": False,  # would be asked for at each first connection
        "connect_args": {
            "application_name": "kmnist-search",
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            # A server that is gone without a word is noticed within half a minute.
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 30_000,
            "prepare_threshold": None,  # statements prepared on a server connection that PgBouncer shares would clash
        },
    }


def _on_sqlite_connect(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself: _on_sqlite_begin does
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")


def _on_postgres_connect(connection: Any, _record: Any) -> None:
    connection.autocommit = True
    connection.execute(f"SET lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'")
    connection.autocommit = False


def _on_sqlite_begin(connection: Connection) -> None:
    reading = connection.get_execution_options().get(_READING, False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
