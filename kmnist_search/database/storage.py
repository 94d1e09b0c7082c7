"""The opened database that holds the studies."""

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
from sqlalchemy import QueuePool, StaticPool, create_engine, inspect
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.exc import DBAPIError
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

from kmnist_search.database import tables
from kmnist_search.database.connections import READING, connection_settings, set_up_connections
from kmnist_search.database.errors import DATABASE_ERRORS, OPENING_SECONDS, is_away, is_forbidden, is_race, reason_of
from kmnist_search.database.url import check_url, shown, to_type
from kmnist_search.errors import ReadOnlyError, StorageAwayError, StorageEmptyError, StorageError


@dataclass(frozen=True, eq=False)
class Storage:
    """An open database.

    Attributes:
        rdb: Optuna's storage on it.
        connections: the open connections to Postgres.
    """

    url: URL
    rdb: RDBStorage
    checkpoint_dir: Path
    connections: set[psycopg.Connection[Any]]

    @property
    def engine(self) -> Engine:
        """The engine, shared with Optuna."""
        return self.rdb.engine

    @property
    def shown_url(self) -> str:
        """The URL without a password."""
        return shown(self.url)

    @property
    def lasting_url(self) -> str:
        """The shown URL, valid in every folder of this machine."""
        if self.url.get_backend_name() != "sqlite":
            return to_type(self.url)
        return f"sqlite:///{Path(self.url.database or '').resolve()}"

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that may write; all of it is committed, or nothing.

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
        """A read-only transaction that sees the present state; it blocks no writer."""
        with self.engine.connect().execution_options(**{READING: True}) as connection, connection.begin():
            yield connection

    @contextmanager
    def time_limit(self, seconds: float) -> Iterator[None]:
        """While entered, break the connections after `seconds`; waiting statements then fail as away.

        TCP keepalive detects a dead machine, but not a server that hangs on a live one. SQLite needs none of this: it
        never waits for longer than its busy timeout.
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
                continue  # closed at this moment

    def disconnect(self) -> None:
        """Close the connections; the next use opens a new one.

        Do not call this while another thread uses one. A connection in use when the engine is disposed stays open in
        its old pool until garbage collection, and keeps others waiting behind PgBouncer.
        """
        pool = self.engine.pool
        if not isinstance(pool, QueuePool) or not pool.checkedout():
            self.engine.dispose()


def open_storage(url: str, *, create: bool, checkpoint_dir: Path | None = None) -> Storage:
    """Open the database at `url`.

    Args:
        url: of a SQLite file, or of an existing database on a Postgres server.
        create: whether to create the SQLite file and the tables if they are missing.
        checkpoint_dir: folder for the checkpoints of trials; by default beside the SQLite file, and for Postgres
            `kmnist-search.checkpoints` in the current folder.

    Raises:
        StorageAwayError: the database cannot be reached now.
        StorageEmptyError: it is missing or holds no studies, and `create` is False.
        StorageError: the URL is of an unsupported kind, or the database is something else.
    """
    parsed = check_url(url)
    if parsed.get_backend_name() == "sqlite":
        _check_file(Path(parsed.database or ""), create=create)
    try:
        rdb = _open(parsed, create=create)
        connections = set_up_connections(rdb.engine)
    except (*DATABASE_ERRORS, sqlite3.Error) as error:
        kind = StorageAwayError if is_away(error) else StorageError
        raise kind(f"{shown(parsed)} cannot be used as a database: {reason_of(error)}.") from None
    return Storage(parsed, rdb, checkpoint_dir or folder_beside(parsed, "checkpoints"), connections)


def _check_file(path: Path, *, create: bool) -> None:
    if not create and not path.exists():
        raise StorageEmptyError(
            f"there is no database at {path.resolve()}. Start a search with: kmnist-search run quickstart, "
            "or choose another one with --storage (KMNIST_SEARCH_STORAGE)."
        )
    if not path.parent.is_dir():
        raise StorageError(f"the folder of {path.resolve()} does not exist. Create it, or use another --storage.")
    for place in (path, path.parent):
        if place.exists() and not os.access(place, os.W_OK):
            raise StorageError(
                f"{place.resolve()} is read-only for you, but SQLite must write even to read a study. "
                "Copy the database to a folder of your own, or change the permissions."
            )


def default_artifact_dir(url: URL) -> Path:
    """Return the default folder for a database's artifacts, placed like its checkpoint folder."""
    return folder_beside(url, "artifacts")


def folder_beside(url: URL, what: str) -> Path:
    """Return a folder named after a SQLite file and beside it; for Postgres, in the current folder."""
    if url.get_backend_name() == "sqlite":
        return Path(url.database or "").with_suffix(f".{what}")
    return Path(f"kmnist-search.{what}")


def _open(url: URL, *, create: bool) -> RDBStorage:
    """Open the database; if several processes make its tables at once, the slower ones use those of the first."""
    complete_url = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")  # Optuna formats it
    settings = connection_settings(url)
    for attempt in Retrying(
        retry=retry_if_exception(is_race),
        stop=stop_after_delay(OPENING_SECONDS),
        wait=wait_random(0.05, 0.5),
        reraise=True,
    ):
        with attempt:
            on_server = url.get_backend_name() != "sqlite"
            are_there = (on_server or not create) and _has_tables(url, settings, create=create)
            if on_server and not are_there:
                _make_tables(complete_url, settings)
            rdb = RDBStorage(
                complete_url, engine_kwargs=settings, skip_table_creation=on_server, skip_compatibility_check=True
            )
            _check_version(rdb)
    return rdb


def _make_tables(url: str, settings: dict[str, Any]) -> None:
    """Make the tables on a server in one connection; Optuna would open a second while it holds the first.

    Behind PgBouncer, processes that start together would use up all server connections and wait for each other.
    """
    alone = {name: value for name, value in settings.items() if not name.startswith(("pool_", "max_"))}
    RDBStorage(url, engine_kwargs={**alone, "poolclass": StaticPool}, skip_compatibility_check=True).engine.dispose()


def _check_version(rdb: RDBStorage) -> None:
    """Refuse tables of another Optuna version, as Optuna does, but in one connection, see `_make_tables`."""
    theirs, ours = rdb.get_current_version(), rdb.get_head_version()
    if theirs != ours:
        raise StorageError(
            f"{shown(rdb.engine.url)} has tables of optuna's schema {theirs}, and this optuna needs {ours}. If theirs "
            "is the older one: optuna storage upgrade --storage URL. If it is the newer one: pip install -U optuna"
        )


def _has_tables(url: URL, settings: dict[str, Any], *, create: bool) -> bool:
    """Return whether all tables exist; this saves a worker one look-up per table.

    Raises:
        StorageEmptyError: there is none, and `create` is False.
    """
    engine = create_engine(url, **settings)
    try:
        names = inspect(engine).get_table_names()
    finally:
        engine.dispose()
    if tables.studies.name not in names and not create:
        raise StorageEmptyError(
            f"{shown(url)} contains no studies yet. Start a search with: kmnist-search run quickstart --storage URL, "
            "or choose another one with --storage (KMNIST_SEARCH_STORAGE)."
        )
    # A server makes all tables in one transaction, and their version in another.
    return {tables.leases.name, tables.workers.name, "alembic_version"} <= set(names)
