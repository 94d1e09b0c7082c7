"""Workers that join a study, and the study and queue made for them: messages, exit codes, what is seen of them."""

import json
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from kmnist_search.database.storage import open_storage
from kmnist_search.host.process import Owner
from kmnist_search.host.signals import StopSignals
from kmnist_search.run.join import join
from kmnist_search.run.options import RunOptions
from kmnist_search.run.search import Search
from kmnist_search.run.submission import prepare
from kmnist_search.study.opening import find_companion, find_study
from kmnist_search.study.status import status_of
from kmnist_search.study.study import VERSION_KEY, SearchStudy
from kmnist_search.study_file.parser import load
from kmnist_search.study_file.schema import PlannedTraining, TrainingSpec
from kmnist_search.worker import worker
from kmnist_search.worker.worker import Worker
from tests.support.postgres import PostgresServer

Invoke = Callable[..., Result]

LOCAL = "sqlite:///kmnist-search.db"


def _tiny(url: str = LOCAL) -> SearchStudy:
    return find_study(open_storage(url, create=False), "tiny")


def _refused(result: Result, *texts: str) -> None:
    assert result.exit_code == 2, result.output
    for text in texts:
        assert text in result.stderr
    assert "Traceback" not in result.output


def test_a_worker_needs_but_the_url_and_does_what_the_queue_holds(invoke: Invoke, tiny_study: Path) -> None:
    made = invoke("submit", "queue", "tiny.toml", "--trials", 3, "--set", "study.pruner=none")
    assert made.exit_code == 0, made.output
    assert made.stdout.splitlines()[0].endswith("0 of 3 trials are finished, 3 wait")
    settings = load(tiny_study, overrides=["study.pruner=none"])
    assert _tiny().file == settings
    tiny_study.unlink()  # the study carries its own

    done = invoke("worker")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    owner = Owner.this_process()
    assert lines[0] == f"worker on host {owner.host}, process {owner.pid}: CPU"
    assert re.fullmatch(r"python \S+  kmnist-search \S+  torch \S+  optuna \S+", lines[1])
    joined = (
        r"joins study tiny in sqlite:///kmnist-search.db: digits, data digest [0-9a-f]{12}, 0 of 3 trials are finished"
    )
    assert re.fullmatch(joined, lines[2])
    assert [line.split("]")[0] for line in lines if line.startswith("[")] == ["[1/3", "[2/3", "[3/3"]
    assert "Done: 3 of 3 trials are finished." in lines
    assert _tiny().counts().finished == 3
    assert _tiny().workers() == []


def test_a_queue_submitted_again_adds_nothing_and_a_larger_one_the_difference(invoke: Invoke) -> None:
    for trials, waiting in ((2, 2), (2, 2), (5, 5)):
        assert invoke("submit", "queue", "tiny.toml", "--trials", trials).exit_code == 0
        assert _tiny().counts().waiting == waiting


def test_a_queue_never_shrinks_and_says_so(invoke: Invoke) -> None:
    invoke("submit", "queue", "tiny.toml", "--trials", 3)
    fewer = invoke("submit", "queue", "tiny.toml", "--trials", 2).stdout
    assert "0 of 3 trials are finished, 3 wait" in fewer
    assert "More trials are queued than --trials 2 asks for; workers do them all" in fewer


def test_the_command_for_a_worker_can_be_typed_as_it_stands_and_shows_no_password(
    invoke: Invoke, postgres: PostgresServer
) -> None:
    url = postgres.new_database()
    made = invoke("submit", "queue", "tiny.toml", "--trials", 1, "--storage", url.replace("tester@", "tester:geheim@"))
    command, password = made.stdout.splitlines()[1:]
    assert command == f"To start a worker: kmnist-search worker tiny --storage {url}"
    assert password == "with the password in PGPASSWORD or ~/.pgpass"
    assert "geheim" not in made.output


def test_max_trials_ends_a_worker_that_could_do_more(invoke: Invoke) -> None:
    invoke("submit", "queue", "tiny.toml", "--trials", 4)
    done = invoke("worker", "tiny", "--max-trials", 3)
    assert done.exit_code == 0
    assert "This worker has done --max-trials trials: 3 of 4 trials are finished." in done.stdout
    counts = _tiny().counts()
    assert (counts.finished, counts.running, counts.waiting) == (3, 0, 1)


def test_a_worker_that_waits_takes_what_is_added_and_leaves_when_time_is_up(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(worker.CLAIM_SECONDS, "forever", 2.0)
    invoke("submit", "queue", "tiny.toml", "--trials", 1)
    study = _tiny()

    def add() -> None:
        while study.counts().finished < 1:
            time.sleep(0.05)
        time.sleep(1)  # the worker looks again at once, and then after a while
        study.fill(2)

    adding = threading.Thread(target=add)
    adding.start()
    done = invoke("worker", "tiny", "--wait", "--timeout", "8s")
    adding.join()
    assert done.exit_code == 0, done.output
    told = [line for line in done.stdout.splitlines() if line.startswith(("[", "nothing"))]
    waiting = "nothing is left to claim; waiting for more"
    assert [line if line == waiting else line.split("]")[0] for line in told] == ["[1/1", waiting, "[2/2", waiting]
    assert "Done: 2 of 2 trials are finished." in done.stdout


def test_a_worker_waits_for_its_study_and_no_longer_than_it_may(invoke: Invoke, tiny_study: Path) -> None:
    vain = invoke("worker", "tiny", "--wait", "--timeout", "1s")
    assert vain.exit_code == 0
    assert vain.stdout.startswith("Waiting: there is no database at ")
    assert vain.stdout.endswith("Time is up before there was anything to do.\n")
    making = threading.Timer(1.0, _submit, [tiny_study])
    making.start()
    done = invoke("worker", "tiny", "--wait", "--max-trials", 1)
    making.join()
    assert done.exit_code == 0, done.output
    assert "--max-trials" in done.stdout or "Done: 1 of 1" in done.stdout


def _submit(file: Path) -> None:
    prepare(load(file), RunOptions(storage_url=LOCAL, trials=1, data_dir=file.parent))


def test_a_worker_refuses_a_study_of_another_version_until_a_run_takes_it_over(invoke: Invoke) -> None:
    invoke("submit", "queue", "tiny.toml", "--trials", 2)
    _tiny().optuna.set_user_attr(VERSION_KEY, "0.0.9")
    _refused(invoke("worker", "tiny"), "study 'tiny' uses kmnist-search 0.0.9, but this worker has 0.1.0")
    assert _tiny().counts().waiting == 2
    taken_over = invoke("run", "tiny.toml", "--trials", 1)
    assert "its trials so far were made by kmnist-search 0.0.9; from now on it takes only workers of 0.1.0" in (
        taken_over.stdout
    )
    assert invoke("worker", "tiny").exit_code == 0


def test_a_worker_with_other_images_is_refused_with_both_digests(invoke: Invoke) -> None:
    invoke("submit", "queue", "tiny.toml", "--trials", 1)
    _tiny().optuna.set_user_attr("data_digest", "0123456789ab")
    refused = invoke("worker", "tiny")
    _refused(refused, "was started with other images or another split (data digest 0123456789ab, now ")
    assert _tiny().counts().waiting == 1


def test_a_worker_of_no_study_is_told_which_there_are(invoke: Invoke) -> None:
    _refused(invoke("worker"), "there is no database at ")
    invoke("submit", "queue", "tiny.toml", "--trials", 1)
    _refused(invoke("worker", "tini"), "has no study 'tini'. Did you mean 'tiny'?")
    _refused(invoke("worker", "tiny", "--device", "tpu"), "--device tpu: use auto, cpu, cuda or cuda:N")
    _refused(invoke("worker", "tiny", "--storage", "mysql://x/y"), "mysql databases are not supported")


def test_a_study_with_another_space_is_refused_before_anything_is_queued(invoke: Invoke) -> None:
    invoke("submit", "queue", "tiny.toml", "--trials", 2)
    refused = invoke("submit", "queue", "tiny.toml", "--trials", 5, "--set", "space.dim={choices = [8, 32]}")
    _refused(refused, "was started with other settings", "space.dim.choices: [8, 16] then, [8, 32] now")
    assert _tiny().counts().total == 2


UNREACHABLE = "postgresql://me:geheim@127.0.0.1:1/kmnist"


def test_a_database_that_cannot_be_reached_is_told_at_once_and_without_the_password(invoke: Invoke) -> None:
    started = time.monotonic()
    refused = invoke("submit", "queue", "tiny.toml", "--storage", UNREACHABLE)
    assert time.monotonic() - started < 10
    _refused(refused, "postgresql://me:***@127.0.0.1:1/kmnist cannot be used as a database", "refused")
    assert "geheim" not in refused.output


@pytest.mark.parametrize("command", [("worker", "tiny"), ("submit", "queue", "tiny.toml")], ids=["worker", "queue"])
def test_who_may_wait_for_a_database_says_why_and_gives_up_in_time(invoke: Invoke, command: tuple[str, ...]) -> None:
    given_up = invoke(*command, "--storage", UNREACHABLE, "--database-timeout", "1s")
    assert given_up.exit_code == 1, given_up.output
    (line,) = given_up.stdout.splitlines()
    assert line.startswith("Waiting: postgresql://me:***@127.0.0.1:1/kmnist cannot be used as a database: ")
    assert "It was tried for 1 s." in given_up.stderr
    assert "geheim" not in given_up.output


def test_a_server_that_refuses_for_good_is_not_waited_for(invoke: Invoke, postgres: PostgresServer) -> None:
    _refused(invoke("worker", "--storage", postgres.url("nowhere")), 'database "nowhere" does not exist')


def test_a_worker_at_work_is_seen_with_its_trial(
    invoke: Invoke, any_storage_url: str, prepared_worker: Callable[[str], tuple[Search, Worker]]
) -> None:
    search, worker = prepared_worker(any_storage_url)
    events = worker.work()
    for _ in range(3):
        next(events)
    owner = Owner.this_process()
    deadline = time.monotonic() + 240
    while not (status := status_of(search.study)).workers or not status.running[0].epoch:
        assert time.monotonic() < deadline
        next(events)
    (seen,) = status.workers
    assert (seen.host, seen.pid, seen.device, list(seen.trials), seen.finished) == (
        owner.host,
        owner.pid,
        "CPU",
        [0],
        0,
    )
    assert seen.unseen < 10
    shown = invoke("status", "--storage", any_storage_url).stdout
    assert re.search(
        rf"{re.escape(owner.host)} seen .* ago trial 0 0 finished CPU process {owner.pid}", " ".join(shown.split())
    )
    assert re.search(r"^trial  0  epoch \d", shown, re.MULTILINE)
    (as_json,) = json.loads(invoke("status", "--storage", any_storage_url, "--json").stdout)["workers"]
    assert (as_json["pid"], as_json["trials"], as_json["is_gone"]) == (owner.pid, [0], False)
    alive = invoke("worker", "--is-alive", "--storage", any_storage_url)
    assert (alive.exit_code, alive.stdout) == (0, f"1 of 1 workers of host {owner.host} were seen lately\n")
    events.close()
    dead = invoke("worker", "--is-alive", "--storage", any_storage_url)
    assert (dead.exit_code, dead.stdout) == (1, f"0 of 0 workers of host {owner.host} were seen lately\n")


@pytest.fixture
def prepared_worker(tiny_study: Path, tmp_path: Path) -> Callable[[str], tuple[Search, Worker]]:
    def make(url: str) -> tuple[Search, Worker]:
        file = load(tiny_study, overrides=["train.epochs=2000", "study.pruner=none"])
        search = prepare(file, RunOptions(storage_url=url, trials=2, data_dir=tmp_path, device="cpu"))
        return search, search.work(StopSignals())[0]

    return make


def test_who_follows_a_study_sees_it_end(invoke: Invoke) -> None:
    invoke("submit", "queue", "tiny.toml", "--trials", 2)
    working = threading.Timer(1.0, _work)
    working.start()
    followed = invoke("submit", "queue", "tiny.toml", "--trials", 2, "--watch")
    working.join()
    assert followed.exit_code == 0, followed.output
    lines = followed.stdout.splitlines()
    assert lines[2] == "[0/2] 0 complete  0 pruned  0 failed  0 running  2 waiting  0 workers"
    assert any(line.startswith("[2/2] ") for line in lines[3:])
    assert lines[-3] == "Done: 2 of 2 trials are finished."
    assert re.match(r"best: val_accuracy \d+\.\d\d %", lines[-2])


def _work() -> None:
    search = join("tiny", RunOptions(storage_url=LOCAL, device="cpu"))
    for _ in search.work(StopSignals())[1]:
        continue


def test_a_worker_whose_models_would_not_be_found_leaves_a_retraining_to_others(invoke: Invoke, tmp_path: Path) -> None:
    invoke("run", "tiny.toml", "--trials", 3, "--set", "study.pruner=none")
    assert invoke("best", "--retrain", "--top", 1, "--models", 1).exit_code == 0
    companion = find_companion(_tiny())
    assert companion is not None
    companion.disown(0, "for a test")
    again = [PlannedTraining(params={}, spec=TrainingSpec.model_validate(companion.added()[0].training))]
    assert companion.add(again) == 2
    left = invoke("worker", "tiny", "--artifacts", tmp_path / "elsewhere")
    assert left.exit_code == 0, left.output
    assert "This worker leaves the retraining to others: the models of study 'tiny-retraining' cannot be" in left.output
    assert companion.counts().waiting == 1
    helped = invoke("worker", "tiny")
    assert helped.exit_code == 0, helped.output
    assert companion.counts().complete == 1
    assert "was stopped, repeat it as it was: kmnist-search best tiny --retrain" in helped.output
