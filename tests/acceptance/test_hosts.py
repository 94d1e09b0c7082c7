"""Workers on hosts that lose the network to their database for a while: nothing is lost, and nothing done twice."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from kmnist_search.queue.attempts import LEASE_RAN_OUT
from tests.support.command import TINY_STUDY
from tests.support.exact import Look, assert_exact
from tests.support.forked import Forked, Forks, Ways, forks, wait_until
from tests.support.hosts import ADDRESSES, Cable, NoNetworkError, Side
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.slow

AWAY = "the database is away, trying again: "
BACK = re.compile(r"^the database is back after (?:(\d+) min )?(\d+)(?:\.\d)? s$", re.MULTILINE)
CUT_SECONDS = 20
#: A connection that is open when the cable is pulled is given up after 30 seconds.
UNPLUGGED_SECONDS = 45


class Hosts:
    """Hosts that work on the study `tiny`, each with one worker."""

    def __init__(self, cable: Cable, server: PostgresServer, forks: Forks) -> None:
        self.cable, self.server, self.forks = cable, server, forks
        self.url = server.new_database()
        self.look = Look(server.url_from_here(self.url.rpartition("/")[2]))
        self.workers: dict[str, Forked] = {}

    def submit(self, *, trials: int, epochs: int, lease_seconds: float) -> None:
        settings = ("--set", "study.pruner=none", "--set", f"study.lease_seconds={lease_seconds}")
        amount = ("--trials", str(trials), "--epochs", str(epochs))
        submit = self._start("desk", "near", "submit", "queue", "tiny.toml", *amount, *settings)
        assert submit.ended() == 0, submit.output

    def work(self, host: str, side: Side) -> None:
        self.workers[host] = self._start(host, side, "worker", "tiny", "--checkpoints", "kept")

    def work_until_all_report(self) -> None:
        """Start a worker on each host and wait until the server has heard of an epoch of each."""
        self.work("near-1", "near")
        self.work("far-1", "far")
        self.work("far-2", "far")
        self.wait_until(lambda: all(self.look.step(number) > 0 for number in range(3)))

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Wait; fail if a worker on the far side ends before."""
        wait_until(ready, *self.far(), every=0.1)

    def wait_for_seconds(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        self.wait_until(lambda: time.monotonic() > until)

    def assert_exact(self, *, trials: int, epochs: int) -> None:
        assert_exact(self.look, list(self.workers.values()), trials=trials, epochs=epochs)
        assert self.look.rows("SELECT * FROM kmnist_search_workers") == []

    def far(self) -> Sequence[Forked]:
        return [worker for host, worker in self.workers.items() if host.startswith("far")]

    def is_nobody_there_from_far(self) -> bool:
        query = f"SELECT 1 FROM pg_stat_activity WHERE client_addr = '{ADDRESSES['far']}'"
        return not self.server.execute(query)

    def _start(self, host: str, side: Side, *arguments: str) -> Forked:
        ways = Ways(step_seconds=0.02, enter=self.cable.host(host, side))
        return self.forks.start(*arguments, "--storage", self.url, ways=ways)


@contextmanager
def _hosts(folder: Path) -> Iterator[Hosts]:
    """One host beside the server and two on the far side of a cable; the study is not made yet."""
    folder.mkdir()
    (folder / "tiny.toml").write_text(TINY_STUDY)
    with Cable() as cable, forks(folder) as start:
        server = PostgresServer(address=ADDRESSES["near"], within=cable.at("near"))
        try:
            yield Hosts(cable, server, start)
        finally:
            server.stop()


def _lose_the_network_for_less_than_a_lease(folder: Path) -> None:
    with _hosts(folder) as hosts:
        hosts.submit(trials=4, epochs=40, lease_seconds=120)
        hosts.work_until_all_report()
        hosts.wait_until(hosts.is_nobody_there_from_far)  # who is in the middle of something only finds the server slow
        with hosts.cable.unplugged():
            hosts.wait_for_seconds(UNPLUGGED_SECONDS)
            assert all(AWAY in worker.output for worker in hosts.far())
        assert [worker.ended() for worker in hosts.workers.values()] == [0, 0, 0]
        for worker in hosts.far():
            minutes, seconds = BACK.findall(worker.output)[0]
            assert 5 <= 60 * int(minutes or 0) + int(seconds) <= UNPLUGGED_SECONDS + 15
        hosts.assert_exact(trials=4, epochs=40)
        assert [hosts.look.hows(number) for number in range(4)] == [["complete"]] * 4


def _hear_no_answers_for_longer_than_a_lease(folder: Path) -> None:
    with _hosts(folder) as hosts:
        hosts.submit(trials=6, epochs=30, lease_seconds=6)
        hosts.work_until_all_report()
        theirs = [number for number in range(3) if hosts.look.attempts(number)[0]["host"].startswith("far")]
        with hosts.cable.deaf():
            hosts.wait_for_seconds(CUT_SECONDS)
            hosts.wait_until(lambda: any(hosts.look.attempts(number)[-1]["host"] == "near-1" for number in theirs))
        assert [worker.ended() for worker in hosts.workers.values()] == [0, 0, 0]
        hosts.assert_exact(trials=6, epochs=30)
        for number in theirs:
            first, *later = hosts.look.attempts(number)
            if later:
                assert first["how"].startswith(LEASE_RAN_OUT)
                told = hosts.workers[first["host"]].output
                assert f"trial {number} lost (its lease ran out" in told


@dataclass(frozen=True)
class Troubles:
    """What happens to hosts on two pairs of networks at the same time: they mostly wait."""

    cut: "Future[None]"
    deaf: "Future[None]"


@pytest.fixture(scope="module")
def troubles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Troubles]:
    try:
        with Cable():
            pass
    except NoNetworkError as error:
        pytest.skip(f"hosts of one's own need root and iproute2: {error}")
    folder = tmp_path_factory.mktemp("hosts")
    with ThreadPoolExecutor() as pool:
        yield Troubles(
            cut=pool.submit(_lose_the_network_for_less_than_a_lease, folder / "cut"),
            deaf=pool.submit(_hear_no_answers_for_longer_than_a_lease, folder / "deaf"),
        )


def test_hosts_that_lose_the_network_for_less_than_a_lease_keep_their_trials(troubles: Troubles) -> None:
    troubles.cut.result()


def test_hosts_without_answers_for_longer_than_a_lease_lose_their_trials_to_others_who_end_them_once(
    troubles: Troubles,
) -> None:
    troubles.deaf.result()
