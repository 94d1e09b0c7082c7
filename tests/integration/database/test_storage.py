"""Opening databases: what is refused with which words, and many processes at once."""

import multiprocessing
import multiprocessing.synchronize
import os
import sqlite3
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from kmnist_search.database.errors import is_passing
from kmnist_search.database.storage import Storage, open_storage
from kmnist_search.database.url import without_password
from kmnist_search.errors import StorageError
from tests.support.postgres import PostgresServer


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("search.db", "'search.db' is not a database URL; write it like sqlite:///search.db"),
        ("sqlite://search.db", "'sqlite://search.db' has too few slashes: write a file as sqlite:///search.db"),
        (
            "mysql://me:secret@host/db",
            "mysql databases are not supported; use SQLite, like sqlite:///kmnist-search.db, "
            "or Postgres, like postgresql://user@host/database",
        ),
        (
            "sqlite://",
            "a search needs a database file: write it like sqlite:///kmnist-search.db",
        ),
        (
            "postgresql+asyncpg://me:secret@host/db",
            "postgresql+asyncpg databases are not supported; use SQLite, like sqlite:///kmnist-search.db, "
            "or Postgres, like postgresql://user@host/database",
        ),
        (
            "postgresql://me:secret@host",
            "postgresql://me:***@host names no database; write it like postgresql://user@host/database",
        ),
        (
            "postgresql://me:secret@word@host/db",
            "the storage URL has more than one @. In a user name or password write @ as %40, : as %3A and / as %2F",
        ),
        (
            "postgresql://me:secret@host:abc/db",
            "'...@host:abc/db' is not a database URL; write it like sqlite:///kmnist-search.db",
        ),
        (
            "postgres:/me:secret@host/db",
            "'...@host/db' is not a database URL; write it like sqlite:///kmnist-search.db",
        ),
        (
            "sqlite:///:memory:",
            "a search needs a database file: write it like sqlite:///kmnist-search.db",
        ),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_with_an_example(url: str, message: str) -> None:
    with pytest.raises(StorageError) as error:
        open_storage(url, create=True)
    assert str(error.value) == message


def test_a_database_that_is_not_there_is_named_and_not_made_by_reading(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as error:
        open_storage(f"sqlite:///{tmp_path}/none.db", create=False)
    assert str(error.value) == (
        f"there is no database at {tmp_path}/none.db. Start a search with: kmnist-search run quickstart, "
        "or choose another one with --storage (KMNIST_SEARCH_STORAGE)."
    )
    assert not (tmp_path / "none.db").exists()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=f"the folder of {tmp_path}/none/x.db does not exist"):
        open_storage(f"sqlite:///{tmp_path}/none/x.db", create=True)


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_text("buy milk, " * 100)
    with pytest.raises(StorageError, match=r"notes\.db cannot be used as a database: file is not a database"):
        open_storage(f"sqlite:///{path}", create=True)
    assert path.read_text() == "buy milk, " * 100


def test_a_folder_named_as_the_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be used as a database: unable to open database file"):
        open_storage(f"sqlite:///{tmp_path}", create=True)


def test_tables_of_another_optuna_are_refused_with_the_way_out(any_storage_url: str) -> None:
    storage = open_storage(any_storage_url, create=True)
    with storage.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'v99.0.0.a'"))
    storage.disconnect()
    with pytest.raises(StorageError, match=r"has tables of optuna's schema v99\.0\.0\.a, and this optuna needs v"):
        open_storage(any_storage_url, create=True)


def test_every_connection_to_sqlite_waits_its_turn_as_a_writer_and_keeps_a_log(storage_url: str) -> None:
    storage = open_storage(storage_url, create=True)
    with storage.writing() as connection:
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
        assert connection.scalar(text("PRAGMA busy_timeout")) == 60_000
        assert connection.scalar(text("PRAGMA synchronous")) == 1  # NORMAL
        with sqlite3.connect(storage.url.database or "", timeout=0.01) as other:
            other.execute("SELECT count(*) FROM trials")
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("INSERT INTO studies (study_name) VALUES ('x')")


def test_reading_makes_no_writer_wait(any_storage_url: str) -> None:
    one, other = (open_storage(any_storage_url, create=True) for _ in range(2))
    insert = text("INSERT INTO studies (study_name) VALUES ('x')")
    with one.reading() as reading:
        assert reading.scalar(text("SELECT count(*) FROM studies")) == 0
        with other.writing() as writing:
            writing.execute(insert)
    with one.reading() as reading:
        assert reading.scalar(text("SELECT count(*) FROM studies")) == 1
    one.disconnect()
    other.disconnect()


def test_a_postgres_url_without_a_driver_takes_psycopg(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    assert open_storage(url, create=True).url.drivername == "postgresql+psycopg"
    assert open_storage(url.replace("postgresql:", "postgres:"), create=False).url.drivername == "postgresql+psycopg"


def test_reading_makes_no_tables_in_an_empty_postgres_database(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    with pytest.raises(StorageError, match=r"contains no studies yet\. Start a search with: kmnist-search run "):
        open_storage(url, create=False)
    tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'"
    assert postgres.execute(tables, url.rpartition("/")[2]) == [(0,)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"host": "no-such-host.invalid"}, "failed to resolve host"),
        ({"port": 1}, r"port 1 failed: Connection refused\.$"),
        ({"database": "none"}, 'database "none" does not exist'),
    ],
)
def test_a_postgres_that_cannot_be_reached_is_named_without_its_password(
    postgres: PostgresServer, change: dict[str, Any], message: str
) -> None:
    url = make_url(postgres.url()).set(password="s3cr3t", **change)
    with pytest.raises(StorageError, match=message) as error:
        open_storage(url.render_as_string(hide_password=False), create=True)
    assert str(error.value).startswith("postgresql://tester:***@")
    assert "s3cr3t" not in str(error.value)
    assert "s3cr3t" not in repr(open_storage(postgres.new_database().replace("tester", "tester:s3cr3t"), create=True))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:s3cr3t@host/db",
        "postgresql://me:s3@cr3t@host/db",
        "postgresql://me@host/db?password=s3cr3t",
        "postgresql://me@host/db?pasword=s3cr3t&sslmode=require",
        "postgresql://me:s3cr3t@host:abc/db?password=s3cr3t",
    ],
)
def test_no_part_of_a_password_is_shown(url: str) -> None:
    assert "s3" not in without_password(url)
    assert "cr3t" not in without_password(url)
    assert "host" in without_password(url)


def test_an_idle_connection_that_the_server_closed_is_replaced(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    storage = open_storage(url, create=True)
    with storage.reading() as connection:
        first = connection.scalar(text("SELECT pg_backend_pid()"))
    postgres.execute(f"SELECT pg_terminate_backend({first})")
    with storage.reading() as connection:
        assert connection.scalar(text("SELECT pg_backend_pid()")) != first
    storage.disconnect()


def _error(storage: Storage, sql: str) -> BaseException:
    with pytest.raises(DBAPIError) as error, storage.writing() as connection:
        connection.execute(text(sql))
    return error.value


def test_mistakes_are_not_tried_again(any_storage_url: str) -> None:
    storage = open_storage(any_storage_url, create=True)
    assert not is_passing(_error(storage, "SELECT no_such_column FROM trials"))
    assert not is_passing(_error(storage, "SELECT * FROM no_such_table"))
    storage.disconnect()


def test_a_lock_that_is_held_too_long_is_tried_again(any_storage_url: str) -> None:
    one, other = (open_storage(any_storage_url, create=True) for _ in range(2))
    with one.writing() as writing:
        writing.execute(text("INSERT INTO studies (study_name) VALUES ('x')"))
        if other.url.get_backend_name() == "sqlite":
            with sqlite3.connect(other.url.database or "", timeout=0.01) as third:
                failing = pytest.raises(sqlite3.OperationalError)
                with failing as locked:
                    third.execute("INSERT INTO studies (study_name) VALUES ('y')")
                error: BaseException = OperationalError("INSERT", None, locked.value)
        else:
            error = _error(other, "SET LOCAL lock_timeout = '50ms'; LOCK TABLE studies")
    assert is_passing(error)
    one.disconnect()
    other.disconnect()


def test_a_server_that_does_not_answer_in_time_is_as_good_as_away(postgres: PostgresServer) -> None:
    storage = open_storage(postgres.new_database(), create=True)
    with storage.time_limit(60), storage.writing() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    started = time.monotonic()
    with pytest.raises(DBAPIError) as error, storage.time_limit(0.3), storage.writing() as connection:
        connection.execute(text("SELECT pg_sleep(30)"))
    assert is_passing(error.value)
    assert time.monotonic() - started < 10
    with storage.writing() as connection:
        assert connection.scalar(text("SELECT 2")) == 2
    storage.disconnect()
    assert not storage.connections


def test_a_server_without_a_free_connection_is_tried_again(postgres: PostgresServer) -> None:
    storage = open_storage(postgres.new_database(), create=True)
    storage.disconnect()
    with ExitStack() as stack:
        with suppress(psycopg.OperationalError):  # until there is none left
            for _ in range(200):
                stack.enter_context(psycopg.connect(postgres.url(), autocommit=True))
        assert is_passing(_error(storage, "SELECT 1"))
    storage.disconnect()


def test_a_process_without_a_free_connection_is_tried_again(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'any.db'}", pool_size=1, max_overflow=0, pool_timeout=0.01)
    with engine.connect(), pytest.raises(SQLAlchemyError, match="QueuePool limit") as error:
        engine.connect()
    assert is_passing(error.value)
    engine.dispose()


def test_a_connection_that_breaks_is_tried_again(postgres: PostgresServer) -> None:
    storage = open_storage(postgres.new_database(), create=True)
    assert is_passing(_error(storage, "SELECT pg_terminate_backend(pg_backend_pid())"))
    storage.disconnect()


def _open_at_once(url: str, barrier: multiprocessing.synchronize.Barrier) -> None:
    barrier.wait(240)
    open_storage(url, create=True).engine.dispose()
    os._exit(0)


@pytest.mark.slow
def test_processes_that_make_the_tables_at_once_all_succeed(any_storage_url: str, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for round_number in range(2):
        barrier = context.Barrier(8)
        url = any_storage_url
        if url.startswith("sqlite"):
            url = f"sqlite:///{tmp_path}/{round_number}.db"
        else:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("DROP SCHEMA public CASCADE")
                connection.execute("CREATE SCHEMA public")
        processes = [context.Process(target=_open_at_once, args=(url, barrier)) for _ in range(8)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(240)
        assert [process.exitcode for process in processes] == [0] * 8
