"""Opening databases: what is refused with which words, and many processes at once."""

import multiprocessing
import multiprocessing.synchronize
import os
from pathlib import Path

import pytest
from sqlalchemy import text

from kmnist_search.errors import StorageError
from kmnist_search.storage import open_storage


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("search.db", "'search.db' is not a database URL; write it like sqlite:///search.db"),
        ("sqlite://search.db", "'sqlite://search.db' has too few slashes: a file is written sqlite:///search.db"),
        (
            "mysql://me:secret@host/db",
            "mysql databases are not supported; use SQLite, like sqlite:///kmnist-search.db",
        ),
        (
            "sqlite://",
            "a search needs a database that lasts: name a file, like sqlite:///kmnist-search.db",
        ),
        (
            "sqlite:///:memory:",
            "a search needs a database that lasts: name a file, like sqlite:///kmnist-search.db",
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
        "or name another one with --storage (KMNIST_SEARCH_STORAGE)."
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


def test_tables_of_another_optuna_are_refused_with_the_way_out(storage_url: str) -> None:
    with open_storage(storage_url, create=True).engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'v99.0.0.a'"))
    with pytest.raises(StorageError, match="no longer compatible with the table schema"):
        open_storage(storage_url, create=True)


def test_every_connection_waits_its_turn_as_a_writer_and_keeps_a_log(storage_url: str) -> None:
    storage = open_storage(storage_url, create=True)
    with storage.engine.begin() as connection:
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
        assert connection.scalar(text("PRAGMA busy_timeout")) == 60_000
        assert connection.scalar(text("PRAGMA synchronous")) == 1  # NORMAL


def _open_at_once(url: str, barrier: multiprocessing.synchronize.Barrier) -> None:
    barrier.wait(60)
    open_storage(url, create=True).engine.dispose()
    os._exit(0)


@pytest.mark.slow
def test_processes_that_make_the_database_at_once_all_succeed(storage_url: str) -> None:
    context = multiprocessing.get_context("fork")
    for round_number in range(5):
        barrier = context.Barrier(8)
        url = f"{storage_url}-{round_number}"
        processes = [context.Process(target=_open_at_once, args=(url, barrier)) for _ in range(8)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [0] * 8
