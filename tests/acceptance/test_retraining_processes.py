"""Retraining as real processes that are stopped and killed: afterwards nothing was done twice and no look is lost."""

import json
import random
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from kmnist_search.database.storage import open_storage
from kmnist_search.engine import verdict
from kmnist_search.engine.verdict import Verdict
from kmnist_search.evaluation.trained import all_over
from kmnist_search.host.signals import StopSignals
from kmnist_search.queue.queue import Counts
from kmnist_search.retrain.plan import RetrainOptions
from kmnist_search.retrain.preparation import prepare
from kmnist_search.retrain.retraining import begin, rejoin
from kmnist_search.run.options import RunOptions
from kmnist_search.run.placement import devices_of
from kmnist_search.run.search import Search
from kmnist_search.run.supervisor import Supervisor
from kmnist_search.study.opening import find_companion, find_study
from kmnist_search.study.study import SearchStudy
from tests.support.forked import Forked, forks, wait_until
from tests.support.postgres import PostgresServer
from tests.support.stand_in_gpu import StandInGpu

pytestmark = pytest.mark.slow

RETRAIN = ("best", "--retrain", "--top", "2", "--reruns", "2", "--models", "2", "--epochs", "6", "--rerun-epochs", "6")


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server that may be killed."""
    server = PostgresServer()
    yield server
    server.stop()


def _companion(url: str) -> SearchStudy:
    companion = find_companion(find_study(open_storage(url, create=False), "tiny"))
    assert companion is not None
    return companion


def test_stopped_and_killed_on_the_way_it_ends_as_if_nothing_had_happened(tiny_study: Path, tmp_path: Path) -> None:
    with forks(tmp_path) as start:
        start.finished("run", "tiny.toml", "--trials", "3", "--set", "study.pruner=none")
        for stop, exit_code, until in (
            (signal.SIGINT, 130, "[1/6] trial"),
            (signal.SIGKILL, -9, "[3/6] trial"),
            (signal.SIGTERM, 130, "[5/6] trial"),
        ):
            running = start.slowly(*RETRAIN)
            wait_until(lambda running=running, until=until: until in running.output, running)  # type: ignore[misc]
            running.signal(stop)
            assert running.ended() == exit_code, running.output
            if stop != signal.SIGKILL:
                assert "Stopped. To resume: kmnist-search best --retrain" in running.output
            assert not (tmp_path / "tiny-best").exists()
        metrics = json.loads("{" + start.finished(*RETRAIN, "--json").output.partition("\n{")[2])
    assert len(metrics["ledger"]) == 2
    assert [len(model["epochs"]) for model in metrics["test"]["models"]] == [6, 6]
    assert _companion(f"sqlite:///{tmp_path / 'kmnist-search.db'}").counts() == Counts(complete=6)
    assert not list((tmp_path / "kmnist-search.checkpoints").glob("*/*.pt"))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".tiny-best")]


def test_a_process_that_comes_when_all_that_is_left_is_being_trained_waits_for_it(
    tiny_study: Path, tmp_path: Path
) -> None:
    only_one = ("best", "--retrain", "--top", "1", "--models", "1", "--epochs", "6")
    with forks(tmp_path) as start:
        start.finished("run", "tiny.toml", "--trials", "2", "--set", "study.pruner=none")
        first = start.slowly(*only_one, step_seconds=1.0)
        study = find_study(open_storage(f"sqlite:///{tmp_path / 'kmnist-search.db'}", create=False), "tiny")
        wait_until(lambda: find_companion(study) is not None, first)
        companion = find_companion(study)
        assert companion is not None
        wait_until(lambda: companion.counts().running == 1, first)
        second = start(*only_one)
        wait_until(lambda: "nothing is left to claim; waiting for more" in second.output, second)
        first.signal(signal.SIGTERM)
        assert [first.ended(), second.ended()] == [130, 0], first.output + second.output
    assert companion.counts() == Counts(complete=1)
    assert len(json.loads((tmp_path / "tiny-best" / "metrics.json").read_text())["ledger"]) == 1


def test_three_processes_that_are_killed_at_random_while_postgres_restarts_do_each_training_and_look_once(
    tiny_study: Path, tmp_path: Path, server: PostgresServer
) -> None:
    url, chance = server.new_database(), random.Random(2)
    storage = ("--storage", url)
    expected = tmp_path / "expected"
    with forks(tmp_path) as start:
        start.finished("run", "tiny.toml", "--trials", "3", "--set", "study.pruner=none", *storage)
        start.finished("studies", "copy", "tiny", "--to", f"sqlite:///{tmp_path / 'copy.db'}", *storage)
        start.finished(*RETRAIN, "--storage", f"sqlite:///{tmp_path / 'copy.db'}", "--out", str(expected))
        helper = ("worker", "tiny", *storage)
        running: list[tuple[tuple[str, ...], Forked]] = [(RETRAIN + storage, start.slowly(*RETRAIN, *storage))]
        wait_until(lambda: "[1/6]" in running[0][1].output, running[0][1])
        running += [(helper, start.slowly(*helper)) for _ in range(2)]
        for _ in range(3):
            time.sleep(2 * chance.random())
            command, process = running.pop(chance.randrange(3))
            if process.exit_code is None:
                process.signal(signal.SIGKILL)
                process.ended()
            server.kill()
            server.start()
            running.append((command, start.slowly(*command)))
        for _, process in running:
            process.ended()
        if not (tmp_path / "tiny-best").exists():  # it was killed, and others had trained all by the time it came back
            start.finished(*RETRAIN, *storage)
    companion = _companion(url)
    assert companion.counts() == Counts(complete=6)
    results = [json.loads((folder / "metrics.json").read_text()) for folder in (tmp_path / "tiny-best", expected)]
    ours, undisturbed = ([model["weights_sha256"] for model in each["test"]["models"]] for each in results)
    assert ours == undisturbed
    assert len(results[0]["ledger"]) == 2
    assert [each["mean_val_accuracy"] for each in results[0]["candidates"]] == [
        each["mean_val_accuracy"] for each in results[1]["candidates"]
    ]


def _on_a_stand_in_gpu(name: str, options: RunOptions) -> Search:
    """Take part in a retraining on one of four stand-in GPUs, which this process has until it ends."""
    StandInGpu(gpus=4, bfloat16=False).__enter__()
    verdict._known[verdict._name(torch.device(options.device))] = NO_KERNELS
    return rejoin(name, options)


NO_KERNELS = Verdict(kernels="their interpreter is slow", graphs="")


def test_four_gpus_share_one_retraining(tiny_study: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'kmnist-search.db'}"
    with forks(tmp_path) as start:
        start.finished("run", "tiny.toml", "--trials", "3", "--set", "study.pruner=none")
    options = RunOptions(storage_url=url, data_dir=tmp_path, gpus=(0, 1, 2, 3))
    study = find_study(open_storage(url, create=False), "tiny")
    preparation = prepare(study, RetrainOptions(top_k=3, reruns=3, models=4), options)
    with StandInGpu(gpus=4), StopSignals() as signals:
        verdict._known[verdict._name(torch.device("cuda:0"))] = NO_KERNELS
        search = begin(preparation, options.on("cuda:0"))
        places = search.places(devices_of(options))
        with Supervisor(search, partial(_on_a_stand_in_gpu, "tiny"), places, signals=signals) as supervisor:
            list(supervisor.work())
    assert supervisor.stopped_by == "budget"
    trained = all_over(_companion(url))
    assert len(trained) == 3 * 3 + 4
    assert {each.device for each in trained} == {"Stand-in GPU"}
    owners = [trial.user_attrs["attempts"][-1]["pid"] for trial in _companion(url).optuna.trials]
    assert len(set(owners)) == 4
