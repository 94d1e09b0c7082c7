"""Benchmark of studies without training: trials of ours and of plain optuna, on both databases.

    python tests/benchmarks/studies.py workers [--counts 1,2,4]   trials/s against the number of workers
    python tests/benchmarks/studies.py size [--sizes 100,1000]    milliseconds a trial costs in a large study
    python tests/benchmarks/studies.py statements                 SQL statements and CPU time of a trial
    python tests/benchmarks/studies.py sleepers                   200 workers that mostly sleep, on one Postgres

Each trial asks for six hyperparameters and reports 20 epochs; TPE proposes, nothing is pruned. A Postgres server with
its default settings is started for the benchmark, from the machine's binaries. "plain" is `study.optimize` with
`MaxTrialsCallback`.
"""

import argparse
import multiprocessing
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.trial import TrialState
from sqlalchemy import event, insert, select, text
from sqlalchemy.engine import Engine

sys.path.insert(0, str(Path(__file__).parents[2]))

from kmnist_search.database import tables
from kmnist_search.database.storage import open_storage
from kmnist_search.queue.queue import Claim
from kmnist_search.queue.workers import WorkerInfo
from kmnist_search.study.opening import open_study
from kmnist_search.study.proposals import Proposals
from kmnist_search.study.study import SearchStudy
from kmnist_search.study_file.parser import load
from kmnist_search.study_file.schema import StudyFile
from kmnist_search.worker.database_thread import DatabaseThread
from tests.support.postgres import PostgresServer

EPOCHS = 20
TRIALS = 400
NAME = "bench"
STUDY = f"""
[study]
name = "{NAME}"
pruner = "none"

[train]
epochs = {EPOCHS}

[space]
learning_rate = {{ low = 1e-4, high = 1e-2, log = true }}
weight_decay = {{ low = 1e-3, high = 1.0, log = true }}
batch_size = {{ choices = [64, 128, 256, 512] }}
dim = {{ choices = [64, 128, 256] }}
dropout = {{ low = 0.0, high = 0.3 }}
num_blocks = {{ low = 1, high = 8 }}
"""

NewUrl = Callable[[], str]


class Work(Protocol):
    """Run a worker: prepare, wait at the barrier, run trials until the budget is spent."""

    def __call__(self, url: str, budget: int, ready: Callable[[], object], epoch_seconds: float) -> list[float]: ...


def study_file() -> StudyFile:
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(STUDY)
        file.flush()
        return load(Path(file.name))


class Desk:
    """A worker of ours without trainings."""

    def __init__(self, url: str, file: StudyFile | None = None) -> None:
        self.file = file or study_file()
        self.study: SearchStudy = open_study(open_storage(url, create=True), self.file)
        self.proposals = Proposals(self.study, self.file)
        self.database_thread = DatabaseThread(
            self.study,
            self.proposals.cached_storage,
            lease_seconds=self.file.study.lease_seconds,
            max_retries=3,
            database_timeout=60,
            counts=self.study.counts(),
            info=WorkerInfo(device="CPU", versions={}, job=None),
        )
        self.study.storage.disconnect()

    def ask(self, budget: int | None) -> tuple[Claim, optuna.Trial] | None:
        claim = self.database_thread.claim(budget=budget).result()
        if claim is None:
            return None
        trial = self.proposals.trial(claim)
        for name, hyperparameter in self.file.space.items():
            hyperparameter.suggest(trial, name)
        return claim, trial

    def run(self, claim: Claim, trial: optuna.Trial, epoch_seconds: float) -> None:
        for epoch in range(1, EPOCHS + 1):
            time.sleep(epoch_seconds)
            trial.report(value_of(trial.params, epoch), epoch)
            trial.should_prune()
        trial.study.tell(trial, value_of(trial.params, EPOCHS))
        assert self.database_thread.finish(claim, epochs=EPOCHS).result()


def value_of(params: dict[str, Any], epoch: int) -> float:
    return float(params["num_blocks"] / 8 + params.get("dropout", 0.0) + epoch / 100)


def our_worker(url: str, budget: int, ready: Callable[[], object], epoch_seconds: float) -> list[float]:
    desk = Desk(url)
    desk.study.fill(budget)
    seconds = []
    with desk.database_thread:
        desk.database_thread.refresh().result()
        ready()
        started = time.perf_counter()
        while (asked := desk.ask(budget)) is not None:
            desk.run(*asked, epoch_seconds)
            seconds.append(time.perf_counter() - started)
            started = time.perf_counter()
    return seconds


def psycopg_url(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://")


def plain_study(url: str) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(psycopg_url(url))
    return optuna.create_study(study_name=NAME, storage=storage, direction="maximize", load_if_exists=True)


def plain_worker(url: str, budget: int, ready: Callable[[], object], epoch_seconds: float) -> list[float]:
    study = plain_study(url)
    study.get_trials(deepcopy=False)
    ready()
    moments = [time.perf_counter()]

    def objective(trial: optuna.Trial) -> float:
        params = {
            "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
            "weight_decay": trial.suggest_float("weight_decay", 1e-3, 1.0, log=True),
            "batch_size": trial.suggest_categorical("batch_size", [64, 128, 256, 512]),
            "dim": trial.suggest_categorical("dim", [64, 128, 256]),
            "dropout": trial.suggest_float("dropout", 0.0, 0.3),
            "num_blocks": trial.suggest_int("num_blocks", 1, 8),
        }
        for epoch in range(1, EPOCHS + 1):
            time.sleep(epoch_seconds)
            trial.report(value_of(params, epoch), epoch)
        return value_of(params, EPOCHS)

    stop = optuna.study.MaxTrialsCallback(budget, states=(TrialState.COMPLETE,))
    study.optimize(objective, callbacks=[stop, lambda *_: moments.append(time.perf_counter())])
    return [later - earlier for earlier, later in pairwise(moments)]


def in_process(work: Work, url: str, budget: int, barrier: Barrier, epoch_seconds: float) -> None:
    try:
        work(url, budget, lambda: barrier.wait(300), epoch_seconds)
    except Exception as error:
        print(f"    a worker died of {type(error).__name__}: {' '.join(str(error).split())[:120]}", flush=True)
        os._exit(1)
    os._exit(0)


def start(work: Work, url: str, workers: int, budget: int, epoch_seconds: float, *, at_once: bool) -> list[Any]:
    """Start workers; each begins when it is ready, or all begin when all are ready."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(workers + 1 if at_once else 1)
    arguments = (work, url, budget, barrier, epoch_seconds)
    processes = [context.Process(target=in_process, args=arguments) for _ in range(workers)]
    for process in processes:
        process.start()
    if at_once:
        barrier.wait(300)
    return processes


def outcome(url: str, processes: Sequence[Any]) -> Counter[str]:
    trials = plain_study(url).get_trials(deepcopy=False)
    found = Counter(trial.state.name.lower() for trial in trials)
    found["crashed workers"] = sum(process.exitcode != 0 for process in processes)
    return found


def workers(kinds: dict[str, NewUrl], counts: Sequence[int]) -> None:
    print(f"{TRIALS} trials of {EPOCHS} epochs, nothing trained: trials/s, and what there was in the end")
    for count in counts:
        for kind, new_url in kinds.items():
            for name, work in (("ours", our_worker), ("plain", plain_worker)):
                url = new_url()
                open_storage(url, create=True).disconnect()
                processes = start(work, url, count, TRIALS, 0.0, at_once=True)
                started = time.perf_counter()
                for process in processes:
                    process.join()
                seconds = time.perf_counter() - started
                found = outcome(url, processes)
                left = ", ".join(f"{number} {what}" for what, number in sorted(found.items()) if number)
                print(f"{count:3} workers  {kind:8}  {name:5}  {found['complete'] / seconds:6.1f}   {left}", flush=True)


def fill_up(url: str, study_id: int, number: int, file: StudyFile | None = None) -> None:
    """Add finished trials as if they had been run."""
    chance = random.Random(0)
    storage = open_storage(url, create=False)
    desk_study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    file = file or study_file()
    for _ in range(200):  # 200 drawn once, and repeated: what counts here is how many there are
        trial = desk_study.ask()
        for name, hyperparameter in file.space.items():
            hyperparameter.suggest(trial, name)
        desk_study.tell(trial, chance.random())
    drawn = desk_study.get_trials(deepcopy=False)
    now = datetime.now(UTC).replace(tzinfo=None)
    finite = optuna.storages._rdb.models.TrialValueModel.TrialValueType.FINITE
    reported = optuna.storages._rdb.models.TrialIntermediateValueModel.TrialIntermediateValueType.FINITE
    with storage.writing() as connection:
        row = {"study_id": study_id, "state": TrialState.COMPLETE, "datetime_start": now, "datetime_complete": now}
        connection.execute(insert(tables.trials), [{**row, "number": index} for index in range(number)])
        ids = list(
            connection.scalars(
                select(tables.trials.c.trial_id)
                .where(tables.trials.c.study_id == study_id)
                .order_by(tables.trials.c.number)
            )
        )
        params, values, reports = [], [], []
        for index, trial_id in enumerate(ids):
            like = drawn[index % len(drawn)]
            for name, distribution in like.distributions.items():
                params.append(
                    {
                        "trial_id": trial_id,
                        "param_name": name,
                        "param_value": distribution.to_internal_repr(like.params[name]),
                        "distribution_json": optuna.distributions.distribution_to_json(distribution),
                    }
                )
            value = value_of(like.params, EPOCHS) + chance.random() / 100
            values.append({"trial_id": trial_id, "objective": 0, "value": value, "value_type": finite})
            reports += [
                {
                    "trial_id": trial_id,
                    "step": step,
                    "intermediate_value": value - (EPOCHS - step) / 100,
                    "intermediate_value_type": reported,
                }
                for step in range(1, EPOCHS + 1)
            ]
        for table, rows in ((tables.params, params), (tables.values, values), (tables.reports, reports)):
            connection.execute(insert(table), rows)
        connection.execute(text("ANALYZE"))  # as a server does by itself within a minute
    storage.disconnect()


def size(kinds: dict[str, NewUrl], sizes: Sequence[int]) -> None:
    repeats = 40
    print(f"one worker, milliseconds a trial (median of {repeats}), and seconds to see a study for the first time")
    for number in sizes:
        for kind, new_url in kinds.items():
            url = new_url()
            desk = Desk(url)
            fill_up(url, desk.study.queue.study_id, number)
            desk.study.fill(number + repeats)
            asked_ms, whole_ms = [], []
            with desk.database_thread:
                started = time.perf_counter()
                desk.database_thread.refresh().result()
                cold = time.perf_counter() - started
                for _ in range(repeats):
                    started = time.perf_counter()
                    asked = desk.ask(10**9)
                    assert asked is not None
                    asked_ms.append(1000 * (time.perf_counter() - started))
                    desk.run(*asked, 0.0)
                    whole_ms.append(1000 * (time.perf_counter() - started))
            started = time.perf_counter()
            command = [str(Path(sys.executable).with_name("kmnist-search")), "status", "--storage", url]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            status = time.perf_counter() - started
            print(
                f"{number:6} finished  {kind:8}  ours   ask {statistics.median(asked_ms):5.1f}  "
                f"trial {statistics.median(whole_ms):5.1f}   first sight {cold:.1f} s, `status` {status:.1f} s",
                flush=True,
            )
            url = new_url()
            study = plain_study(url)
            open_storage(url, create=True).disconnect()
            fill_up(url, study._study_id, number)
            moments: list[float] = []
            started = time.perf_counter()
            plain_study(url).get_trials(deepcopy=False)
            cold = time.perf_counter() - started
            moments = plain_worker(url, number + repeats, lambda: None, 0.0)
            whole = 1000 * statistics.median(moments)
            print(
                f"{number:6} finished  {kind:8}  plain            trial {whole:5.1f}   first sight {cold:.1f} s",
                flush=True,
            )


def statements(kinds: dict[str, NewUrl], before: int = 300, repeats: int = 40) -> None:
    """Print what does not depend on how busy the machine is."""
    sent: Counter[str] = Counter()

    def count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent[" ".join(statement.split())[:100]] += 1

    event.listen(Engine, "before_cursor_execute", count)
    for kind, new_url in kinds.items():
        url = new_url()
        desk = Desk(url)
        fill_up(url, desk.study.queue.study_id, before)
        desk.study.fill(before + repeats)
        milliseconds = []
        with desk.database_thread:
            desk.database_thread.refresh().result()
            sent.clear()
            for _ in range(repeats):
                started = time.process_time()
                asked = desk.ask(10**9)
                assert asked is not None
                desk.run(*asked, 0.0)
                milliseconds.append(1000 * (time.process_time() - started))
        print(
            f"{kind}, {before} finished: {statistics.median(milliseconds):.1f} ms of CPU time a trial, SQL statements:"
        )
        for statement, number in sent.most_common():
            print(f"  {number / repeats:5.2f}  {statement}", flush=True)


def sleepers(server: PostgresServer, number: int = 200, epoch_seconds: float = 3.0) -> None:
    url = server.new_database()
    open_storage(url, create=True).disconnect()
    (limit,) = server.execute("SHOW max_connections")
    print(f"{number} workers, an epoch every {epoch_seconds:g} s, max_connections = {limit[0]}")
    processes = start(our_worker, url, number, 2 * number, epoch_seconds, at_once=False)
    started, most = time.perf_counter(), 0
    query = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{url.rpartition('/')[2]}'"
    while any(process.is_alive() for process in processes):
        ((connections,),) = server.execute(query)
        most = max(most, int(str(connections)))
        time.sleep(0.05)
    seconds = time.perf_counter() - started
    refused = server.log.count("too many clients")
    found = outcome(url, processes)
    left = ", ".join(f"{number} {what}" for what, number in sorted(found.items()) if number)
    print(f"{seconds:.0f} s ({2 * EPOCHS * epoch_seconds:.0f} s of it asleep): {left}; ", end="")
    print(f"{refused} refused connections, at most {most} at once")


@contextmanager
def place() -> Iterator[tuple[dict[str, NewUrl], PostgresServer]]:
    server = PostgresServer()
    with tempfile.TemporaryDirectory() as folder:
        numbers = iter(range(10_000))
        try:
            yield {"sqlite": lambda: f"sqlite:///{folder}/{next(numbers)}.db", "postgres": server.new_database}, server
        finally:
            server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["workers", "size", "statements", "sleepers"])
    parser.add_argument("--counts", default="1,2,4,8,16,32")
    parser.add_argument("--sizes", default="100,1000,10000")
    chosen = parser.parse_args()
    print(f"Python {platform.python_version()}, optuna {optuna.__version__}, {os.cpu_count()} cores")
    with place() as (kinds, server):
        match chosen.what:
            case "workers":
                workers(kinds, [int(count) for count in chosen.counts.split(",")])
            case "size":
                size(kinds, [int(number) for number in chosen.sizes.split(",")])
            case "statements":
                statements(kinds)
            case "sleepers":
                sleepers(server)


if __name__ == "__main__":
    main()
