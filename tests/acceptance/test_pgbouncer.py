"""Workers that reach their Postgres server through PgBouncer, which shares its connections to it among them."""

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from kmnist_search.database.storage import open_storage
from tests.support.exact import Look, assert_exact
from tests.support.forked import Forks, forks, wait_until
from tests.support.pgbouncer import PgBouncer, program
from tests.support.postgres import PostgresServer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(program() is None, reason="there is no pgbouncer (Debian's package)"),
]


@pytest.fixture
def start(tmp_path: Path, tiny_study: Path) -> Iterator[Forks]:
    """Start commands in the folder that has `tiny.toml`."""
    with forks(tmp_path) as lent:
        yield lent


@pytest.fixture
def by_transaction(postgres: PostgresServer) -> Iterator[PgBouncer]:
    """One connection to the server for all who come, lent out for a transaction."""
    bouncer = PgBouncer(postgres, "transaction", pool_size=1)
    yield bouncer
    bouncer.stop()


@pytest.fixture(params=["session", "transaction"])
def bouncer(request: pytest.FixtureRequest, postgres: PostgresServer) -> Iterator[PgBouncer]:
    bouncer = PgBouncer(postgres, request.param, pool_size=2 if request.param == "session" else 1)
    yield bouncer
    bouncer.stop()


def _worker(url: str) -> tuple[str, ...]:
    return ("worker", "tiny", "--storage", url, "--checkpoints", "kept")


def _submit(url: str, *, trials: int, epochs: int) -> tuple[str, ...]:
    amount = ("--trials", str(trials), "--epochs", str(epochs))
    return ("submit", "queue", "tiny.toml", "--storage", url, *amount)


def test_workers_behind_it_share_the_budget_exactly_and_the_study_can_be_read(
    start: Forks, bouncer: PgBouncer, postgres: PostgresServer
) -> None:
    name = postgres.new_database().rpartition("/")[2]
    url = bouncer.url(name)
    submits = [start(*_submit(url, trials=20, epochs=4)) for _ in range(3)]  # with a database that is empty
    assert [submit.ended() for submit in submits] == [0, 0, 0], [submit.output for submit in submits]
    runs = [start(*_worker(url)) for _ in range(2)]
    assert [run.ended() for run in runs] == [0, 0], [run.output for run in runs]
    assert_exact(Look(postgres.url(name)), runs, trials=20, epochs=4)
    for run in runs:
        assert "the database is away" not in run.output
    assert "20 of 20" in start.finished("status", "--storage", url).output
    best = json.loads(start.finished("best", "--json", "--top", "3", "--storage", url).output)
    assert [trial["rank"] for trial in best["top"]] == [1, 2, 3]
    start.finished("report", "--storage", url)
    assert "</html>" in (start.folder / "tiny-report.html").read_text()


def test_a_pooler_that_is_gone_for_a_while_stops_no_training(
    start: Forks, bouncer: PgBouncer, postgres: PostgresServer
) -> None:
    name = postgres.new_database().rpartition("/")[2]
    look = Look(postgres.url(name))
    settings = ("--set", "study.pruner=none", "--set", "study.lease_seconds=60")
    start.finished(*_submit(postgres.url(name), trials=4, epochs=15), *settings)
    runs = [start.slowly(*_worker(bouncer.url(name))) for _ in range(2)]
    wait_until(lambda: look.step(0) > 0 and look.step(1) > 0, *runs)
    bouncer.kill()
    wait_until(lambda: all("the database is away, trying again: " in run.output for run in runs), *runs)
    bouncer.start()
    assert [run.ended() for run in runs] == [0, 0], [run.output for run in runs]
    for run in runs:
        assert "the database is back after " in run.output
    assert_exact(look, runs, trials=4, epochs=15)
    assert [look.hows(number) for number in range(4)] == [["complete"]] * 4


def test_a_limit_for_locks_holds_for_its_transaction_and_for_no_other_client(
    by_transaction: PgBouncer, postgres: PostgresServer
) -> None:
    name = postgres.new_database().rpartition("/")[2]
    storage = open_storage(by_transaction.url(name), create=True)
    for _ in range(2):
        with storage.writing() as connection:
            assert connection.scalar(text("SHOW lock_timeout")) == "20s"
            assert connection.scalar(text("SELECT count(*) FROM trials")) == 0
        with psycopg.connect(by_transaction.url(name)) as other:
            assert other.execute("SHOW lock_timeout").fetchone() == ("0",)
    storage.disconnect()
