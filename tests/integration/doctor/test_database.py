"""Tests of doctor/database.py on real databases: reachable, writable, and left as they were."""

from collections.abc import Callable
from pathlib import Path

from kmnist_search.database.storage import open_storage
from kmnist_search.doctor.database import database
from tests.support.postgres import PostgresServer


def test_a_database_that_can_be_used_is_left_as_it_was(any_storage_url: str) -> None:
    open_storage(any_storage_url, create=True).disconnect()
    for _ in range(2):  # the first has left nothing in the way of the second
        (finding,) = database(any_storage_url)
        assert finding.state == "ok"
        assert finding.text.endswith(" ms, and can be written")


def test_an_empty_postgres_can_be_used(postgres: PostgresServer) -> None:
    (finding,) = database(postgres.new_database())
    assert finding.state == "ok"


def test_a_role_that_may_only_read_is_bad(postgres: PostgresServer, as_reader: Callable[[str], str]) -> None:
    url = postgres.new_database()
    open_storage(url, create=True).disconnect()
    (finding,) = database(as_reader(url))
    assert finding.state == "bad"
    assert "permission denied for table trials" in finding.text


def test_a_server_that_is_not_there_is_bad_and_no_password_is_shown() -> None:
    (finding,) = database("postgresql://me:hush@127.0.0.1:1/studies?password=hush")
    assert finding.state == "bad"
    assert "Connection refused" in finding.text
    assert "hush" not in str(finding)


def test_a_sqlite_file_is_not_made_by_the_check(tmp_path: Path) -> None:
    (finding,) = database(f"sqlite:///{tmp_path}/search.db")
    assert (finding.state, finding.text) == ("absent", f"sqlite:///{tmp_path}/search.db is made by the first run")
    (finding,) = database(f"sqlite:///{tmp_path}/nowhere/search.db")
    assert (finding.state, finding.advice) == (
        "bad",
        f"Make the folder {tmp_path}/nowhere, or choose one that you may write.",
    )
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_url_or_no_database_is_bad(tmp_path: Path) -> None:
    (finding,) = database("mysql://host/db")
    assert finding.state == "bad"
    (tmp_path / "other.db").write_bytes(b"not a database at all" * 100)
    (finding,) = database(f"sqlite:///{tmp_path}/other.db")
    assert finding.state == "bad"
    assert "file is not a database" in finding.text
