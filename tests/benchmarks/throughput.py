"""Benchmark of how many workers one Postgres server supports: trials an hour of workers that sleep instead of train.

    python tests/benchmarks/throughput.py [--counts 1,4,16,64,128,256] [--window 120] [--pgbouncer transaction]

Each worker is a full worker process without the training: a database thread with leases and the table of workers, TPE,
and a pruner that is asked after each epoch. The study is the built-in `kmnist` (30 epochs, 8 hyperparameters) with
1,000 finished trials, on a Postgres server with its default settings. Instead of training, a worker sleeps: each trial
takes as long, and as many epochs, as one of `TRIALS`, scaled to a mean of 60 s. It ends as that one did,
whatever the pruner says.

The result is the share of the workers' seconds in a window that was training. All workers are in the middle of a trial
when the window begins and when it ends, so that it contains neither the start nor the last trials. Only the planned
seconds of sleep count as training; waiting, computing and oversleeping do not. All workers share the cores of the
machine with the server; real workers have their own.
"""

import argparse
import gc
import json
import multiprocessing
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import optuna
import psutil
import psycopg
from optuna.trial import TrialState

sys.path.insert(0, str(Path(__file__).parents[2]))

from kmnist_search.study_file.builtin import builtin_studies
from kmnist_search.study_file.parser import load
from kmnist_search.study_file.schema import StudyFile
from tests.benchmarks.studies import Desk, fill_up, value_of
from tests.support.pgbouncer import PgBouncer
from tests.support.postgres import PostgresServer

#: Seconds, epochs of 5 and outcome of each trial of `kmnist-search run kmnist-cpu --trials 20 --workers 1`.
TRIALS = [
    (18.81, 5, TrialState.COMPLETE),
    (10.18, 4, TrialState.PRUNED),
    (6.18, 1, TrialState.PRUNED),
    (1.92, 1, TrialState.PRUNED),
    (15.66, 4, TrialState.PRUNED),
    (5.63, 2, TrialState.PRUNED),
    (3.41, 1, TrialState.PRUNED),
    (4.81, 1, TrialState.PRUNED),
    (8.17, 2, TrialState.PRUNED),
    (3.58, 1, TrialState.PRUNED),
    (4.87, 1, TrialState.PRUNED),
    (17.72, 5, TrialState.COMPLETE),
    (11.95, 2, TrialState.PRUNED),
    (13.52, 5, TrialState.COMPLETE),
    (13.19, 5, TrialState.COMPLETE),
    (12.77, 5, TrialState.COMPLETE),
    (3.07, 2, TrialState.PRUNED),
    (12.34, 5, TrialState.COMPLETE),
    (13.55, 5, TrialState.COMPLETE),
    (18.30, 5, TrialState.COMPLETE),
]
MEASURED_EPOCHS = 5
FINISHED_BEFORE = 1000
#: More than a worker can run until its window ends.
TRIALS_A_WORKER = 12
#: After the last worker has begun, before the window begins.
SETTLE_SECONDS = 10.0
POLL_SECONDS = 0.05


@dataclass(kw_only=True)
class Log:
    """What a worker did, by `time.monotonic`.

    Attributes:
        epochs: when each began, and how long it was to take.
        gaps: when a training ended, and how long it took until the next began.
    """

    epochs: list[tuple[float, float]] = field(default_factory=list)
    gaps: list[tuple[float, float]] = field(default_factory=list)

    def trained(self, begin: float, end: float) -> float:
        """Return the seconds of training between two moments."""
        return sum(max(min(at + seconds, end) - max(at, begin), 0.0) for at, seconds in self.epochs)

    def gaps_in(self, begin: float, end: float) -> list[float]:
        return [seconds for at, seconds in self.gaps if begin <= at < end]


def study_file() -> StudyFile:
    return load(builtin_studies()["kmnist"])


def drawn_trials(chance: random.Random, mean_seconds: float, epochs: int) -> Iterator[tuple[float, int, TrialState]]:
    """Yield seconds of an epoch, number of epochs and outcome of one trial after another."""
    scale = mean_seconds / statistics.mean(seconds for seconds, _, _ in TRIALS)
    while True:
        seconds, measured, state = chance.choice(TRIALS)
        number = epochs * measured // MEASURED_EPOCHS
        yield scale * seconds / number, number, state


def work(url: str, number: int, mean_seconds: float, stop: Event, log_path: Path) -> None:
    """Run a worker until it is stopped, then write its log and exit."""
    desk, log = Desk(url, study_file()), Log()
    chance = random.Random(number)
    skipped: float = chance.random()  # of the first trial, as if it had begun earlier
    ended_at = None
    with desk.database_thread:
        desk.database_thread.refresh().result()
        for seconds, epochs, state in drawn_trials(chance, mean_seconds, desk.study.epochs):
            asked = desk.ask(None)
            assert asked is not None
            claim, trial = asked
            if ended_at is not None:
                log.gaps.append((ended_at, time.monotonic() - ended_at))
            for epoch in range(1 + int(skipped * epochs), epochs + 1):
                log.epochs.append((time.monotonic(), seconds))
                time.sleep(seconds)
                if stop.is_set():
                    log_path.write_text(json.dumps(asdict(log)))
                    os._exit(0)
                ended_at = time.monotonic()
                trial.report(value_of(trial.params, epoch), epoch)
                trial.should_prune()
            skipped = 0.0
            value = value_of(trial.params, epochs) if state == TrialState.COMPLETE else None
            trial.study.tell(trial, value, state=state)
            assert desk.database_thread.finish(claim, epochs=epochs).result()


def cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    """Return the processor time of processes, and of their children that have ended."""
    total = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # a connection that was closed at this moment
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


class Server:
    """The database server, observed through one connection that stays open."""

    def __init__(self, server: PostgresServer, url: str) -> None:
        self.server = server
        self.connection = psycopg.connect(url, autocommit=True)

    def running(self) -> int:
        return self._number("SELECT count(*) FROM trials WHERE state = 'RUNNING'")

    def finished(self) -> int:
        return self._number("SELECT count(*) FROM trials WHERE state IN ('COMPLETE', 'PRUNED')")

    def connections(self) -> int:
        """Return the number of connections, without this one."""
        return self._number(
            "SELECT count(*) - 1 FROM pg_stat_activity "
            "WHERE datname = current_database() AND backend_type = 'client backend'"
        )

    def refused(self) -> int:
        return self.server.log.count("too many clients")

    def cpu_seconds(self) -> float:
        postmaster = psutil.Process(int((self.server.data / "postmaster.pid").read_text().splitlines()[0]))
        return cpu_seconds([postmaster, *postmaster.children()])

    def _number(self, sql: str) -> int:
        row = self.connection.execute(sql.encode()).fetchone()
        assert row is not None
        return int(row[0])


@dataclass(frozen=True, kw_only=True)
class Window:
    """What was seen from `begin` to `end`, by `time.monotonic`.

    Attributes:
        at_work_after: seconds from the start of the processes until all were at work.
        first_connections: the most at once while they started; `most_connections` is that of the window.
        server_cores: that the database server kept busy on the mean; of the workers likewise.
    """

    begin: float
    end: float
    at_work_after: float
    first_connections: int
    most_connections: int
    refused: int
    server_cores: float
    worker_cores: float
    finished: int

    @property
    def seconds(self) -> float:
        return self.end - self.begin


def start(url: str, count: int, mean_seconds: float, stop: Event, folder: Path) -> list[Any]:
    gc.freeze()  # else each would soon have a copy of all that is imported
    context = multiprocessing.get_context("fork")
    arguments = [(url, number, mean_seconds, stop, folder / f"{number}.json") for number in range(count)]
    processes = [context.Process(target=work, args=each) for each in arguments]
    for process in processes:
        process.start()
    return processes


def watch(server: Server, processes: Sequence[Any], seconds: float) -> Window:
    """Wait until all workers have a trial, then observe them for the window."""
    started, first = time.monotonic(), 0
    while server.running() < len(processes):
        assert all(process.is_alive() for process in processes), "a worker died"
        assert time.monotonic() < started + 600, "the workers do not get to work"
        first = max(first, server.connections())
        time.sleep(POLL_SECONDS)
    at_work_after = time.monotonic() - started
    time.sleep(SETTLE_SECONDS)
    workers = [psutil.Process(process.pid) for process in processes]
    begin, most, finished = time.monotonic(), 0, server.finished()
    before = server.cpu_seconds(), cpu_seconds(workers)
    while time.monotonic() < begin + seconds:
        most = max(most, server.connections())
        time.sleep(POLL_SECONDS)
    end = time.monotonic()
    after = server.cpu_seconds(), cpu_seconds(workers)
    return Window(
        begin=begin,
        end=end,
        at_work_after=at_work_after,
        first_connections=first,
        most_connections=most,
        refused=server.refused(),
        server_cores=(after[0] - before[0]) / (end - begin),
        worker_cores=(after[1] - before[1]) / (end - begin),
        finished=server.finished() - finished,
    )


def measure(
    postgres: PostgresServer, bouncer: PgBouncer | None, count: int, mean_seconds: float, seconds: float
) -> tuple[Window, list[Log]]:
    direct = postgres.new_database()
    url = bouncer.url(direct.rpartition("/")[2]) if bouncer else direct
    desk = Desk(direct, study_file())
    fill_up(direct, desk.study.queue.study_id, FINISHED_BEFORE, desk.file)
    desk.study.fill(FINISHED_BEFORE + TRIALS_A_WORKER * count)
    desk.study.storage.disconnect()
    stop = multiprocessing.get_context("fork").Event()
    with tempfile.TemporaryDirectory() as folder:
        processes = start(url, count, mean_seconds, stop, Path(folder))
        try:
            window = watch(Server(postgres, direct), processes, seconds)
        finally:
            stop.set()
            for process in processes:
                process.join()
        return window, [Log(**json.loads(path.read_text())) for path in Path(folder).iterdir()]


def table(
    postgres: PostgresServer, bouncer: PgBouncer | None, counts: Sequence[int], mean_seconds: float, seconds: float
) -> None:
    print(f"trials of {mean_seconds:g} s on the mean, {FINISHED_BEFORE:,} finished before, windows of {seconds:g} s")
    print("         trials/hour         of one    ms between trials   connections at once     cores busy   all at work")
    print(
        "workers  by time  counted  worker's  median  95 %   most  at start  then  refused  server  workers     after"
    )
    alone = None
    for count in counts:
        window, logs = measure(postgres, bouncer, count, mean_seconds, seconds)
        share = sum(log.trained(window.begin, window.end) for log in logs) / (count * window.seconds)
        alone = alone or share
        gaps = sorted(1000 * gap for log in logs for gap in log.gaps_in(window.begin, window.end))
        shown_gaps = [gaps[int(part * (len(gaps) - 1))] for part in (0.5, 0.95, 1.0)] if gaps else [0.0, 0.0, 0.0]
        print(
            f"{count:7}  {3600 * count * share / mean_seconds:7.1f}  {3600 * window.finished / window.seconds:7.1f}  "
            f"{share / alone:8.1%}  {shown_gaps[0]:6.0f} {shown_gaps[1]:5.0f} {shown_gaps[2]:6.0f}"
            f"  {window.first_connections:8} {window.most_connections:5}  {window.refused:7}"
            f"  {window.server_cores:6.2f}  {window.worker_cores:7.2f}  {window.at_work_after:6.1f} s",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="1,4,16,64,128,256", help="numbers of workers, the first to compare with")
    parser.add_argument("--window", type=float, default=120.0, help="seconds of each measurement")
    parser.add_argument("--mean", type=float, default=60.0, help="seconds of a trial on the mean")
    parser.add_argument("--pgbouncer", choices=["session", "transaction"], help="reach the server through PgBouncer")
    chosen = parser.parse_args()
    counts = [int(count) for count in chosen.counts.split(",")]
    print(f"Python {platform.python_version()}, optuna {optuna.__version__}, {os.cpu_count()} cores")
    postgres, bouncer = PostgresServer(), None
    try:
        if chosen.pgbouncer:
            bouncer = PgBouncer(postgres, chosen.pgbouncer, pool_size=20)
            print(f"through PgBouncer by {chosen.pgbouncer}, {bouncer.pool_size} connections to the server at most")
        table(postgres, bouncer, counts, chosen.mean, chosen.window)
    finally:
        if bouncer:
            bouncer.stop()
        postgres.stop()


if __name__ == "__main__":
    main()
