"""`pause`, `resume` and `stop` from elsewhere, on both kinds of database: real processes obey, and nothing is lost."""

import json
from collections import Counter
from pathlib import Path

import pytest

from kmnist_search.database.storage import open_storage
from kmnist_search.study.opening import find_study
from tests.support.exact import Look, assert_exact
from tests.support.forked import Forked, Forks, Ways, forks, wait_until

pytestmark = pytest.mark.slow

PAUSED = "the study is paused; waiting until it is resumed (kmnist-search resume)"
#: A short lease: workers look for a halt at least four times in it.
LEASE = ("--set", "study.lease_seconds=4")
#: Seconds to wait before each step: no training ends before its study is halted.
SLOW = 0.2
STUDY = ("tiny.toml", "--trials", "4", "--epochs", "20", "--set", "study.pruner=none", *LEASE)


def _says(start: Forks, *arguments: str) -> str:
    return start.finished(*arguments).output


def _waits_until(run: Forked, text: str, *, times: int = 1) -> None:
    wait_until(lambda: run.output.count(text) >= times, run)


def _state(start: Forks, *where: str) -> tuple[str | None, int]:
    status = json.loads(_says(start, "status", "--json", *where))
    return status["halt"], status["trials"]["running"]


def test_workers_anywhere_wait_while_a_study_is_paused_and_end_when_it_is_stopped(
    tiny_study: Path, tmp_path: Path, any_storage_url: str
) -> None:
    where, look = ("--storage", any_storage_url), Look(any_storage_url)
    with forks(tmp_path) as start:
        run = start.slowly("run", *STUDY, *where, step_seconds=SLOW)
        wait_until(lambda: look.running() == 1, run)
        worker = start.slowly("worker", "tiny", *where, step_seconds=SLOW)
        wait_until(lambda: look.running() == 2, worker)
        said = _says(start, "pause", "tiny", *where)
        assert "study tiny is paused: 2 workers will hand back what they train and wait. To go on: " in said
        for each in (run, worker):
            _waits_until(each, PAUSED)
        assert _state(start, *where) == ("paused", 0)
        assert [look.hows(number)[-1] for number in (0, 1)] == ["handed back: the study is paused"] * 2
        assert "paused: workers wait. To go on: kmnist-search resume tiny" in _says(start, "status", *where)
        said = _says(start, "resume", "tiny", *where)
        assert "study tiny was paused; it goes on\n2 workers of the study will train what waits" in said
        wait_until(lambda: look.running() == 2, run)
        assert "2 workers will hand back what they train and end" in _says(start, "stop", "tiny", *where)
        assert run.ended() == 130
        assert "The study was stopped: 0 of 4 trials are finished, none is left running here. To resume:" in run.output
        assert worker.ended() == 0
        assert "The study was stopped: 0 of 4 trials are finished" in worker.output
        assert _state(start, *where) == ("stopped", 0)
        late = start.finished("worker", "tiny", *where)
        assert "To resume: kmnist-search resume tiny" in late.output
        assert ", and then kmnist-search worker tiny" in late.output
        assert "the study is stopped, so it waits" in _says(start, "enqueue", "tiny", "dim=8", *where)
        assert "resumes after epoch" not in late.output
        last = start.finished("run", *STUDY, *where)
        assert "study tiny was stopped; it goes on" in last.output
        assert _state(start, *where) == (None, 0)
    assert look.states() == Counter({"COMPLETE": 4})
    assert_exact(look, [run, worker, late, last], trials=4, epochs=20)


def test_all_processes_of_one_run_end_when_the_study_is_stopped(tiny_study: Path, tmp_path: Path) -> None:
    look = Look(f"sqlite:///{tmp_path / 'kmnist-search.db'}")
    with forks(tmp_path) as start:
        run = start.start("run", *STUDY, "--workers", "2", ways=Ways(step_seconds=SLOW, forks_workers=True))
        wait_until(lambda: look.running() == 2, run)
        start.finished("pause")
        _waits_until(run, PAUSED)
        start.finished("stop")
        assert run.ended() == 130
        assert run.output.count(PAUSED) == 1
        assert run.output.count("The study was stopped: 0 of 4 trials are finished") == 1
        assert "neither paused nor stopped" in _says(start, "resume") + _says(start, "resume")
    assert look.running() == 0


def test_a_retraining_that_is_stopped_goes_on_where_it_was(tiny_study: Path, tmp_path: Path) -> None:
    study = ("tiny.toml", "--trials", "2", "--epochs", "1", *LEASE)
    retrain = ("best", "tiny", "--retrain", "--top", "1", "--reruns", "2", "--models", "1", "--epochs", "20")
    with forks(tmp_path) as start:
        start.finished("run", *study)
        retraining = start.slowly(*retrain, step_seconds=SLOW)
        wait_until(lambda: json.loads(_says(start, "status", "--json"))["retraining"] is not None, retraining)
        look = Look(f"sqlite:///{tmp_path / 'kmnist-search.db'}")
        wait_until(lambda: look.running() == 1, retraining)
        assert "1 worker will hand back" in _says(start, "stop", "tiny")
        assert retraining.ended() == 130
        assert "The study was stopped. To resume: kmnist-search best tiny --retrain" in retraining.output
        again = start.finished(*retrain)
        assert "study tiny was stopped; it goes on" in again.output
    assert (tmp_path / "tiny-best" / "model.pt").exists() or list((tmp_path / "tiny-best").iterdir())


def test_a_worker_of_a_paused_study_ends_when_all_is_done(tiny_study: Path, tmp_path: Path) -> None:
    with forks(tmp_path) as start:
        start.finished("run", *STUDY)
        assert "study tiny is finished, and no worker is there: nothing to be paused" in _says(start, "pause")
        assert json.loads(_says(start, "status", "--json"))["halt"] is None
        find_study(open_storage(f"sqlite:///{tmp_path / 'kmnist-search.db'}", create=False), "tiny").set_halt("paused")
        assert "Done: 4 of 4 trials are finished" in _says(start, "worker", "tiny")
