"""The database dies, hangs, breaks connections, is locked or full while workers train: they go on, and all is exact."""

import contextlib
import json
import random
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from kmnist_search.queue.attempts import LEASE_RAN_OUT, PROCESS_DIED
from tests.support.command import Command
from tests.support.exact import Look, assert_exact
from tests.support.forked import Forks, forks, wait_until
from tests.support.postgres import PostgresServer
from tests.support.proxy import Proxy

pytestmark = pytest.mark.slow

PASSWORD = "hush-hush"
AWAY = "the database is away, trying again: "
BACK = re.compile(r"^the database is back after (?:(\d+) min )?(\d+)(?:\.\d)? s$", re.MULTILINE)
RESUMES = re.compile(r"^trial 0 resumes after epoch (\d+)$", re.MULTILINE)


@pytest.fixture
def start(tmp_path: Path, tiny_study: Path) -> Iterator[Forks]:
    """Start commands in the folder that has `tiny.toml`."""
    with forks(tmp_path) as lent:
        yield lent


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server that may be killed."""
    server = PostgresServer()
    yield server
    server.stop()


def _run(url: str, *, trials: int, epochs: int, lease_seconds: float = 8) -> tuple[str, ...]:
    """Return the command that works on the study, with checkpoints in `kept`; other options may follow."""
    amount = ("--trials", str(trials), "--epochs", str(epochs))
    settings = ("--set", "study.pruner=none", "--set", f"study.lease_seconds={lease_seconds}")
    return ("run", "tiny.toml", "--storage", url, "--checkpoints", "kept", *amount, *settings)


def _with_password(url: str) -> str:
    return url.replace("tester@", f"tester:{PASSWORD}@")


def _saved_at(folder: Path) -> float:
    """Return when a checkpoint was last written, by `time.time`."""
    return max((path.stat().st_mtime for path in folder.glob("kept/*/*.pt")), default=0.0)


def _assert_nobody_was_robbed(look: Look, trials: int) -> None:
    assert [look.hows(number) for number in range(trials)] == [["complete"]] * trials


def test_training_continues_while_the_server_is_dead_and_is_reported_when_it_is_back(
    start: Forks, server: PostgresServer
) -> None:
    seconds = 10  # longer than the lease
    url = server.new_database()
    look = Look(url)
    runs = [start.slowly(*_run(url, trials=3, epochs=30, lease_seconds=7), checkpoint_seconds=0.2) for _ in range(2)]
    wait_until(lambda: look.step(0) > 0 and look.step(1) > 0, *runs)
    server.kill()
    killed_at = time.time()
    wait_until(lambda: all(AWAY in run.output for run in runs) and _saved_at(start.folder) > killed_at + 2, *runs)
    wait_until(lambda: time.time() > killed_at + seconds, *runs)
    server.start()
    wait_until(lambda: all(BACK.search(run.output) for run in runs), *runs)
    assert [run.ended() for run in runs] == [0, 0]
    for run in runs:
        assert _seconds_away(run.output) >= seconds - 3  # away is told when something was to be written
    assert_exact(look, runs, trials=3, epochs=30)
    _assert_nobody_was_robbed(look, 3)


def test_a_server_away_for_too_long_ends_the_run_with_a_checkpoint_to_resume_from(
    start: Forks, server: PostgresServer
) -> None:
    url = server.new_database()
    look = Look(url)
    work = (*_run(_with_password(url), trials=1, epochs=40, lease_seconds=2), "--database-timeout", "2s")
    run = start.slowly(*work)
    wait_until(lambda: look.step() > 0, run)
    before = look.step()
    server.kill()
    assert run.ended() == 1
    shown = re.escape(url.replace("postgresql://tester@", "postgresql://tester:***@"))
    assert re.search(rf"^Error: {shown} could not be used for [2-9] s: .*refused", run.output, re.MULTILINE)
    assert re.search(
        r"^Trial 0 was left with a checkpoint at step [\d,]+\. A trial goes back to the queue when its lease",
        run.output,
        re.M,
    )
    assert PASSWORD not in run.output
    server.start()
    last = start.finished(*work)
    assert int(RESUMES.findall(last.output)[0]) > before
    assert_exact(look, [run, last], trials=1, epochs=40)
    lost, ended = look.hows()
    assert str(lost).startswith((PROCESS_DIED, LEASE_RAN_OUT))  # whichever the next run saw first
    assert ended == "complete"


def test_a_trial_trained_to_its_end_while_the_server_is_away_for_too_long_leaves_a_checkpoint(
    start: Forks, server: PostgresServer
) -> None:
    url = server.new_database()
    look = Look(url)
    work = (*_run(url, trials=1, epochs=12, lease_seconds=2), "--database-timeout", "4s")
    run = start.slowly(*work)
    wait_until(lambda: look.step() > 0, run)
    server.kill()
    assert run.ended() == 1
    assert "could not be used for" in run.output
    server.start()
    last = start.finished(*work)
    assert_exact(look, [run, last], trials=1, epochs=12)
    assert RESUMES.search(last.output)


def test_a_signal_while_the_server_is_away_ends_the_run_within_ten_seconds(
    start: Forks, server: PostgresServer
) -> None:
    url = server.new_database()
    look = Look(url)
    work = _run(url, trials=1, epochs=25, lease_seconds=2)
    run = start.slowly(*work)
    wait_until(lambda: look.step() > 0, run)
    server.kill()
    wait_until(lambda: AWAY in run.output, run)
    run.signal(signal.SIGTERM)
    assert run.ended() == 1
    assert "\nstopping, waiting at most 3 s for the database\n" in run.output
    assert "Trial 0 was left with a checkpoint" in run.output
    server.start()
    last = start.finished(*work)
    assert RESUMES.search(last.output)
    assert_exact(look, [run, last], trials=1, epochs=25)


@pytest.mark.parametrize("fault", ["lost_commits", "late_commits"])
def test_broken_connections_and_commits_without_an_answer_change_nothing(
    start: Forks, server: PostgresServer, fault: str
) -> None:
    database = server.new_database().rpartition("/")[2]
    look = Look(server.url(database))
    moments = random.Random(0)
    with Proxy(server.port) as proxy:
        work = _run(server.url(database, port=proxy.port), trials=16, epochs=6)
        runs = [start.slowly(*work) for _ in range(2)]
        wait_until(lambda: all("study tiny" in run.output for run in runs), *runs)
        setattr(proxy, fault, 0.25)
        while look.states()["COMPLETE"] < 13:
            proxy.reset()
            until = time.monotonic() + moments.uniform(0.2, 0.8)
            wait_until(lambda until=until: time.monotonic() > until, *runs)  # type: ignore[misc]
        setattr(proxy, fault, 0.0)
        assert [run.ended() for run in runs] == [0, 0], [run.output for run in runs]
    assert proxy.losses >= 3
    assert_exact(look, runs, trials=16, epochs=6)
    _assert_nobody_was_robbed(look, 16)


def test_a_trial_handed_back_without_an_answer_keeps_its_checkpoint(start: Forks, server: PostgresServer) -> None:
    database = server.new_database().rpartition("/")[2]
    look = Look(server.url(database))
    with Proxy(server.port) as proxy:
        work = _run(server.url(database, port=proxy.port), trials=1, epochs=20)
        run = start.slowly(*work)
        wait_until(lambda: look.step() > 0, run)
        proxy.lost_commits = 1.0
        run.signal(signal.SIGTERM)
        wait_until(lambda: look.states() == {"WAITING": 1}, run)
        proxy.lost_commits = 0.0
        ended = run.ended()
        last = start.finished(*work)
    assert_exact(look, [run, last], trials=1, epochs=20)
    assert ended == 130
    assert "trial 0 handed back" in run.output
    assert RESUMES.search(last.output)


def test_a_server_that_is_silent_for_a_while_stops_no_training(start: Forks, server: PostgresServer) -> None:
    database = server.new_database().rpartition("/")[2]
    look = Look(server.url(database))
    with Proxy(server.port) as proxy:
        run = start.slowly(*_run(server.url(database, port=proxy.port), trials=2, epochs=20), checkpoint_seconds=0.2)
        wait_until(lambda: look.step() > 0, run)
        proxy.answers = False
        silent_at = time.time()
        wait_until(lambda: _saved_at(start.folder) > silent_at + 0.5, run)
        wait_until(lambda: time.time() > silent_at + 4, run)
        proxy.answers = True
        proxy.reset()
        assert run.ended() == 0, run.output
    assert_exact(look, [run], trials=2, epochs=20)
    _assert_nobody_was_robbed(look, 2)


def test_a_signal_while_the_server_is_silent_ends_the_run_before_the_silence_itself_would(
    start: Forks, server: PostgresServer
) -> None:
    database = server.new_database().rpartition("/")[2]
    look = Look(server.url(database))
    with Proxy(server.port) as proxy:
        work = _run(server.url(database, port=proxy.port), trials=1, epochs=200, lease_seconds=4)
        run = Command(work, start.folder)  # with the interpreter's own end, which has a thread to leave behind
        run.wait_for(lambda: look.step() > 0)
        proxy.answers = False
        run.process.send_signal(signal.SIGTERM)
        # 7.4 to 7.9 s on two quiet cores; a connection gives up after LOCK_TIMEOUT_SECONDS twice, 40 s.
        assert run.ended(seconds=30) == 1
        assert "Trial 0 was left with a checkpoint" in run.output
        proxy.answers = True
        last = start.finished(*work)
    assert RESUMES.search(last.output)
    assert_exact(look, [run, last], trials=1, epochs=200)


def test_the_victim_of_a_deadlock_tries_again(start: Forks, server: PostgresServer) -> None:
    url = server.new_database()
    name = url.rpartition("/")[2]
    server.execute(f"ALTER DATABASE {name} SET deadlock_timeout = '2s'")
    look = Look(url)
    run = start.slowly(*_run(url, trials=2, epochs=20, lease_seconds=2))
    waiting = f"SELECT 1 FROM pg_stat_activity WHERE datname = '{name}' AND wait_event_type = 'Lock'"
    wait_until(lambda: look.step() > 0, run)
    with psycopg.connect(url) as other:
        other.execute("SET deadlock_timeout = '60s'")  # who looks first is the victim
        other.execute("SELECT trial_id FROM trials WHERE number = 0 FOR UPDATE")
        # The worker has its lease locked by now, and waits for its trial to add reports to it.
        wait_until(lambda: bool(server.execute(waiting)), run, every=0.005)
        other.execute("UPDATE kmnist_search_leases SET seconds = seconds")
        other.rollback()
    assert run.ended() == 0
    assert "deadlock detected" in server.log  # the worker tries again at once, often before it could tell
    assert "deadlock detected" in server.log
    assert_exact(look, [run], trials=2, epochs=20)
    _assert_nobody_was_robbed(look, 2)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'search.db'}"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock that every writer of a SQLite file needs."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


def test_a_sqlite_file_that_another_process_locks_stops_no_training(
    start: Forks, tmp_path: Path, sqlite_url: str
) -> None:
    look = Look(sqlite_url)
    runs = [start.slowly(*_run(sqlite_url, trials=4, epochs=20), checkpoint_seconds=0.2) for _ in range(2)]
    wait_until(lambda: look.step(0) > 0 and look.step(1) > 0, *runs)
    with _locked(tmp_path / "search.db"):
        locked_at = time.time()
        wait_until(lambda: _saved_at(tmp_path) > locked_at + 0.5, *runs)
        wait_until(lambda: time.time() > locked_at + 5, *runs)
    assert [run.ended() for run in runs] == [0, 0], [run.output for run in runs]
    assert_exact(look, runs, trials=4, epochs=20)
    _assert_nobody_was_robbed(look, 4)


def test_a_signal_while_the_sqlite_file_is_locked_ends_the_run_within_ten_seconds(
    start: Forks, tmp_path: Path, sqlite_url: str
) -> None:
    look = Look(sqlite_url)
    work = _run(sqlite_url, trials=1, epochs=20)
    run = start.slowly(*work)
    wait_until(lambda: look.step() > 0, run)
    with _locked(tmp_path / "search.db"):
        run.signal(signal.SIGTERM)
        # 7.4 to 7.9 s on two quiet cores; a connection gives up after LOCK_TIMEOUT_SECONDS twice, 40 s.
        assert run.ended(seconds=30) == 1
    assert "Trial 0 was left with a checkpoint" in run.output
    last = start.finished(*work)
    assert RESUMES.search(last.output)
    assert_exact(look, [run, last], trials=1, epochs=20)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The folder of a file system of a few megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    with contextlib.suppress(FileNotFoundError):
        if subprocess.run(mounting, capture_output=True).returncode == 0:
            yield folder
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
            return
    pytest.skip("nothing may be mounted here")


def _fill(path: Path) -> None:
    """Take all the room that is left."""
    with path.open("ab", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)


def test_a_full_disk_stops_no_training_and_is_told_when_there_is_room_again(start: Forks, small_disk: Path) -> None:
    url = f"sqlite:///{small_disk / 'search.db'}"
    look = Look(url)
    runs = [start.slowly(*_run(url, trials=4, epochs=20), checkpoint_seconds=0.2) for _ in range(2)]
    wait_until(lambda: look.step(0) > 0 and look.step(1) > 0, *runs)
    filler = small_disk / "filler"

    def told() -> bool:
        _fill(filler)
        return all(re.search(rf"{AWAY}(database or disk is full|disk I/O error)", run.output) for run in runs)

    full_at = time.time()
    wait_until(told, *runs)
    assert _saved_at(start.folder) > full_at
    filler.unlink()
    assert [run.ended() for run in runs] == [0, 0], [run.output for run in runs]
    assert all(BACK.search(run.output) for run in runs)
    assert_exact(look, runs, trials=4, epochs=20)
    _assert_nobody_was_robbed(look, 4)


def test_no_password_is_ever_shown(start: Forks, server: PostgresServer) -> None:
    plain = server.new_database()
    url = _with_password(plain)
    in_query = f"{plain}?password={PASSWORD}"
    look = Look(plain)
    work = _run(url, trials=2, epochs=20)
    stopped = start.slowly(*work)
    wait_until(lambda: look.step() > 0, stopped)
    stopped.signal(signal.SIGTERM)
    assert stopped.ended() == 130
    assert "To resume: kmnist-search run tiny.toml --storage 'postgresql://tester:***@127.0.0.1" in stopped.output
    good = [start.finished(*work), start.finished("run", f"--storage={in_query}", *work[1:2], *work[4:], "--json")]
    for storage in (url, in_query):
        for shown in (("status",), ("best",), ("studies",)):
            good += [start.finished(*shown, "--storage", storage, *json_too) for json_too in ((), ("--json",))]
    assert json.loads(good[-1].output)[0]["study"] == "tiny"
    bad = []
    for wrong in (url.replace("127.0.0.1", "nowhere.invalid"), url.replace(f":{server.port}/", ":1/"), f"{url}-not"):
        for storage in (wrong, f"{wrong}?password={PASSWORD}"):
            bad += [start(*work[:2], "--storage", storage), start("status", "--storage", storage)]
    for broken in (f"mysql://me:{PASSWORD}@host/db", f"me:{PASSWORD}@host/db", f"postgresql://me:{PASSWORD}@host"):
        bad.append(start("studies", "--storage", broken))
    for run in bad:
        assert run.ended() == 2, run.output
    for run in start.started:
        assert PASSWORD not in run.output
        assert "Traceback" not in run.output
    assert_exact(look, [stopped, *good], trials=2, epochs=20)


def _seconds_away(output: str) -> int:
    minutes, seconds = BACK.findall(output)[0]
    return 60 * int(minutes or 0) + int(seconds)
