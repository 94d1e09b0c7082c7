"""Searches by the tasks of a real Slurm, which cancels, requeues and limits them. The budget stays exact."""

import contextlib
import json
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from kmnist_search.database.storage import open_storage
from kmnist_search.queue.queue import Counts
from kmnist_search.study.opening import find_study
from tests.support.command import TINY_STUDY
from tests.support.exact import Look, assert_exact
from tests.support.forked import Ways, forks
from tests.support.postgres import PostgresServer
from tests.support.slurm import SlurmCluster, wait_for

pytestmark = pytest.mark.slow

#: Trials that all go on for so many epochs, and that a worker may leave alone for a while.
EPOCHS = 100
UNPRUNED = ("--set", f"train.epochs={EPOCHS}", "--set", "study.pruner=none", "--set", "study.lease_seconds=600")
#: What a worker says when it begins, and what is noted of a trial that was not lost.
BEGAN = "worker on host "
HANDED_BACK = "handed back: "


@dataclass(frozen=True)
class Log:
    """What a task has said in all its turns."""

    path: Path

    @property
    def output(self) -> str:
        return self.path.read_text() if self.path.exists() else ""

    @property
    def turns(self) -> int:
        return self.output.count(BEGAN)


@dataclass(frozen=True)
class Paused:
    """A worker that does not renew its lease and hears of no signals, and the number of its trial."""

    process: psutil.Process
    trial: int

    def resume(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):  # Slurm wakes what it ends
            self.process.send_signal(signal.SIGCONT)


@dataclass(frozen=True)
class Search:
    """A study in a database of its own, worked on from a folder of its own by a cluster."""

    slurm: SlurmCluster
    folder: Path
    url: str

    @property
    def look(self) -> Look:
        return Look(self.url)

    def command(self, *arguments: str) -> str:
        """Run `kmnist-search` to its end, which is a good one; return what it prints."""
        environment = {**self.slurm.environment, "KMNIST_SEARCH_STORAGE": self.url}
        with forks(self.folder) as start:
            run = start.start(*arguments, ways=Ways(environment=environment))
            assert run.ended(seconds=240) == 0, run.output
        return run.output

    def logs(self, job: str, tasks: int) -> list[Log]:
        return [Log(self.folder / "kmnist-search.logs" / f"{job}_{task}.log") for task in range(tasks)]

    def paused(self, job: str, task: int) -> "Paused":
        """Wait until the worker of a task is in the middle of a trial, and stop it there."""
        found: list[psutil.Process] = []

        def trains() -> bool:
            found[:] = [each for each in _workers(job, task) if self._steps_of(each) >= 2]
            return bool(found)

        wait_for(trains, lambda: "\n".join(log.output for log in self.logs(job, task + 1)), every=0.2)
        found[0].send_signal(signal.SIGSTOP)
        trial = self.trial_of(found[0])
        assert trial is not None
        return Paused(found[0], trial)

    def trial_of(self, worker: psutil.Process) -> int | None:
        """Return the number of the trial that a worker runs."""
        running = "SELECT number FROM trials WHERE state = 'RUNNING'"
        numbers = [row[0] for row in self.look.rows(running)]
        return next((each for each in numbers if self.look.attempts(each)[-1]["pid"] == worker.pid), None)

    def _steps_of(self, worker: psutil.Process) -> int:
        number = self.trial_of(worker)
        return 0 if number is None else self.look.step(number)


@pytest.fixture(scope="module")
def search(slurm: SlurmCluster, postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Search:
    folder = tmp_path_factory.mktemp("it's 100% ü")
    (folder / "tiny.toml").write_text(TINY_STUDY)
    return Search(slurm, folder, postgres.new_database().replace("tester@", "tester:s3cret@"))


@dataclass(frozen=True)
class Troubled:
    """A search of four tasks: the first was cancelled, the second requeued, the third came to its limit.

    Attributes:
        printed: by who submitted it and waited for its end.
        shown: the command lines of all processes of this machine, while it was worked on.
        gpus: those that each task was given.
        states: how the tasks have ended.
        trials: those that the tasks had when it happened.
    """

    search: Search
    printed: str
    shown: str
    gpus: list[str]
    states: dict[str, str]
    trials: list[int]
    logs: list[Log]

    def hows(self, task: int) -> list[str | None]:
        """Return how the attempts ended at the trial that a task had."""
        return self.search.look.hows(self.trials[task])


@pytest.fixture(scope="module")
def troubled(search: Search, slurm: SlurmCluster) -> Troubled:
    limits = ("--time", "60", "--grace-period", "5m")
    typed = ("submit", "slurm", "tiny.toml", "--trials", "5", "--workers", "4", "--watch", *limits, *UNPRUNED)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(search.command, *typed)
        wait_for(lambda: waiting.done() or bool(_jobs(slurm)), slurm.logs)
        assert not waiting.done(), waiting.result()
        (job,) = _jobs(slurm)
        workers = list(pool.map(lambda task: search.paused(job, task), range(4)))
        gpus = [worker.process.environ()["CUDA_VISIBLE_DEVICES"] for worker in workers]
        shown = str([process.info["cmdline"] for process in psutil.process_iter(["cmdline"])])
        logs = search.logs(job, 4)
        _trouble(slurm, job, workers, logs)
        states = slurm.ended(job, explain=lambda: "\n".join(log.output for log in logs))
        printed = waiting.result()
    return Troubled(search, printed, shown, gpus, states, [worker.trial for worker in workers], logs)


def _trouble(slurm: SlurmCluster, job: str, workers: list[Paused], logs: list[Log]) -> None:
    # As close to its limit that Slurm warns it when it next looks, which it does twice a minute.
    slurm.do("scontrol", "update", f"JobId={job}_2", "TimeLimit=5")
    slurm.do("scancel", f"{job}_0")
    slurm.do("scontrol", "requeue", f"{job}_1")
    for worker in (workers[0], workers[1], workers[3]):
        worker.resume()
    wait_for(lambda: "Slurm sent USR1" in logs[2].output, slurm.logs)
    workers[2].resume()
    wait_for(lambda: slurm.states(job)["2"] == "PENDING", lambda: logs[2].output)
    slurm.do("scontrol", "update", f"JobId={job}_2", "TimeLimit=60")


def test_four_workers_have_a_gpu_each_and_who_submitted_them_is_told_when_all_trials_are_finished(
    troubled: Troubled,
) -> None:
    assert sorted(troubled.gpus) == ["0", "1", "2", "3"]
    assert "Done: 5 of 5 trials are finished." in troubled.printed
    assert f"Slurm job {_job_of(troubled.printed)}_3" in troubled.logs[3].output
    assert "s3cret" not in "".join([troubled.printed, troubled.shown, *(log.output for log in troubled.logs)])


def test_a_task_that_nothing_happens_to_works_to_the_end_in_one_turn(troubled: Troubled) -> None:
    assert troubled.states["3"] == "COMPLETED"
    assert troubled.logs[3].turns == 1
    assert troubled.hows(3) == ["complete"]


def test_a_search_whose_tasks_are_cancelled_requeued_and_limited_ends_with_exactly_its_trials(
    troubled: Troubled,
) -> None:
    assert troubled.search.look.states() == {"COMPLETE": 5}
    assert_exact(troubled.search.look, troubled.logs, trials=5, epochs=EPOCHS)
    assert len(set(troubled.trials)) == 4


def test_a_task_that_is_scancelled_hands_its_trial_back(troubled: Troubled) -> None:
    assert troubled.states["0"] == "CANCELLED"
    assert troubled.logs[0].turns == 1
    assert re.search(r"^Slurm sent TERM: the worker stops\.$", troubled.logs[0].output, re.MULTILINE)
    first, *_, last = troubled.hows(0)
    assert str(first).startswith(HANDED_BACK)
    assert last == "complete"


def test_a_task_that_is_requeued_hands_its_trial_back_and_comes_again(troubled: Troubled) -> None:
    assert troubled.states["1"] == "COMPLETED"
    assert troubled.logs[1].turns == 2
    assert "Slurm starts this task again" not in troubled.logs[1].output
    assert str(troubled.hows(1)[0]).startswith(HANDED_BACK)


def test_a_task_that_comes_to_its_time_limit_hands_its_trial_back_and_requeues_itself(troubled: Troubled) -> None:
    assert troubled.states["2"] == "COMPLETED"
    assert troubled.logs[2].turns == 2
    first, _, second = troubled.logs[2].output.partition("Slurm starts this task again.\n")
    assert first.count(BEGAN) == second.count(BEGAN) == 1
    assert str(troubled.hows(2)[0]).startswith(HANDED_BACK)


def _jobs(slurm: SlurmCluster) -> set[str]:
    return set(slurm.ask("squeue", "--noheader", "--format=%F").split())


def _workers(job: str, task: int) -> list[psutil.Process]:
    """Return the Python process of a task."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):
            if "kmnist_search.cli" in (process.info["cmdline"] or []):
                about = process.environ()
                if (about.get("SLURM_ARRAY_JOB_ID"), about.get("SLURM_ARRAY_TASK_ID")) == (job, str(task)):
                    found.append(process)
    return found


def _job_of(printed: str) -> str:
    found = re.search(r"^job    (\d+), ", printed, re.MULTILINE)
    assert found, printed
    return found[1]


def test_the_tasks_also_retrain_the_winner_and_one_of_them_writes_the_report(
    search: Search, slurm: SlurmCluster
) -> None:
    little = ("--set", "retrain.top_k=2", "--set", "retrain.reruns=2", "--set", "retrain.models=2")
    typed = ("submit", "slurm", "tiny.toml", "--name", "to-the-report", "--trials", "4", "--workers", "2", "--retrain")
    job = _job_of(search.command(*typed, "--set", "study.pruner=none", "--set", "train.epochs=4", *little))
    logs = search.logs(job, 2)
    states = slurm.ended(job, explain=lambda: "\n".join(log.output for log in logs))
    said = "\n".join(log.output for log in logs)
    assert set(states.values()) == {"COMPLETED"}, said
    metrics = json.loads((search.folder / "to-the-report-best" / "metrics.json").read_text())
    assert (len(metrics["candidates"]), len(metrics["ledger"])) == (2, 2)
    assert said.count("test set, seed ") == 2  # each model was tested by one task, and only once
    storage = open_storage(search.url, create=False)
    assert find_study(storage, "to-the-report-retraining").counts() == Counts(complete=2 * 2 + 2)
