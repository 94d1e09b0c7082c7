"""Benchmark of the dashboard's content: CPU seconds of a worker for note, plots and pictures, and their database rows.

    python tests/benchmarks/showcase.py DATA_DIR [--trials 12] [--before 0] [--postgres]

A real search of `kmnist-cpu` on real KMNIST in this process, with one thread. With `--before 5000` the study
already has that many trials, copies of one with other values. `--postgres` starts a Postgres server.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from optuna.trial import TrialState
from sqlalchemy import func, select

sys.path.insert(0, str(Path(__file__).parents[2]))

from kmnist_search.archive.records import TrialRecord, add_trials, read_study
from kmnist_search.dashboard_content.attributes import DashboardAttributes
from kmnist_search.dashboard_content.publisher import Publisher
from kmnist_search.database import tables
from kmnist_search.database.storage import Storage
from kmnist_search.host.signals import StopSignals
from kmnist_search.run.options import RunOptions
from kmnist_search.run.search import Search
from kmnist_search.run.submission import prepare
from kmnist_search.study_file.builtin import builtin_studies
from kmnist_search.study_file.parser import load
from tests.support.postgres import PostgresServer

STUDY = "kmnist-cpu"


class Meter:
    """Counts what the publisher does, by what of its work it belongs to."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}
        self.rows: list[int] = []

    @contextmanager
    def reading(self) -> Iterator[None]:
        """While entered, each piece of work of a publisher and each writing of a attributes is counted."""
        tried, write = Publisher._try, DashboardAttributes.write

        def timed(publisher: Publisher, work: Callable[[], None]) -> None:
            began = time.thread_time()
            tried(publisher, work)
            name = getattr(work, "func", work).__name__
            self.seconds.setdefault(name, []).append(time.thread_time() - began)

        def counted(attributes: DashboardAttributes, connection: Any, note: Callable[[str], str]) -> int:
            rows = write(attributes, connection, note)
            self.rows.append(rows)
            return rows

        with patch.object(Publisher, "_try", timed), patch.object(DashboardAttributes, "write", counted):
            yield


def begun(data_dir: Path, url: str, trials: int) -> Search:
    options = RunOptions(storage_url=url, trials=trials, data_dir=data_dir, device="cpu")
    return prepare(load(builtin_studies()[STUDY]), options)


def worked(search: Search) -> None:
    _, events = search.work(StopSignals(), cores=1)
    for _ in events:
        pass


def filled(search: Search, number: int) -> None:
    """Give a study of one finished trial `number - 1` more like it, half of them pruned, with values of their own."""
    storage, study_id = search.study.storage, search.study.queue.study_id
    with storage.reading() as connection:
        (first,) = read_study(connection, study_id)[1]

    def copies() -> Iterator[TrialRecord]:
        for at in range(1, number):
            value = 0.9 + 0.05 * (at * 0.618034 % 1)
            yield first.model_copy(
                update={
                    "number": at,
                    "state": "COMPLETE" if at % 2 else "PRUNED",
                    "values": (value,) if at % 2 else (),
                }
            )

    with storage.writing() as connection:
        add_trials(connection, study_id, copies())


def stored(storage: Storage) -> tuple[int, int]:
    """Return rows and characters of the study's attributes that belong to the dashboard."""
    table = tables.study_system_attributes
    ours = select(func.length(table.c.value_json)).where(table.c.key.startswith("dashboard:"))
    with storage.reading() as connection:
        lengths = connection.scalars(ours).all()
    return len(lengths), sum(lengths)


def report(meter: Meter, seconds: float, storage: Storage) -> None:
    spent = sum(map(sum, meter.seconds.values()))
    print(f"process {seconds:.1f} s of CPU, of which the publisher {spent:.2f} s: {spent / seconds:.2%}")
    for name, times in sorted(meter.seconds.items()):
        print(f"  {name:<10} {len(times):>3} times  {sum(times):.3f} s  at most {max(times):.3f} s")
    rows, characters = stored(storage)
    print(
        f"the dashboard's attributes: {rows} rows, {characters:,} characters; rows written by each update: {meter.rows}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--before", type=int, default=0)
    parser.add_argument("--postgres", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        server = PostgresServer() if asked.postgres else None
        url = server.new_database() if server else f"sqlite:///{folder}/search.db"
        try:
            if asked.before:
                first = begun(asked.data_dir, url, 1)
                worked(first)
                filled(first, asked.before)
            search = begun(asked.data_dir, url, asked.before + asked.trials)
            meter, before = Meter(), time.process_time()
            with meter.reading():
                worked(search)
            report(meter, time.process_time() - before, search.study.storage)
            assert search.study.counts().finished == asked.before + asked.trials
            assert TrialState.COMPLETE in {trial.state for trial in search.study.trials()}
        finally:
            if server:
                server.stop()


if __name__ == "__main__":
    main()
