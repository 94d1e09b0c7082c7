"""`submit kubernetes` as a user meets it: what is printed, what is refused and when, what is handed to kubectl."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import Result

from kmnist_search.database.storage import open_storage
from kmnist_search.study.opening import find_study, open_study, study_names
from kmnist_search.study_file.parser import load
from tests.support.postgres import PostgresServer

Invoke = Callable[..., Result]

APPLY = ("submit", "kubernetes", "tiny.toml", "--trials", "5", "--workers", "2", "--image", "kmnist-search:1")
HERE = (*APPLY, "--dry-run")


def _refused(result: Result, *parts: str) -> None:
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    for part in parts:
        assert part in result.stderr
    assert "Traceback" not in result.stderr


def test_a_dry_run_prints_manifests_alone_and_says_on_stderr_what_else_is_to_be_done(invoke: Invoke) -> None:
    done = invoke(*HERE, "--gpus", "0", "--epochs", "2", "--set", "study.pruner=none")
    assert done.exit_code == 0, done.output
    study, job = yaml.safe_load_all(done.stdout)
    assert study["data"] == {"study.toml": Path("tiny.toml").read_text()}
    pod = job["spec"]["template"]["spec"]
    assert pod["initContainers"][0]["args"] == [
        *("submit", "queue", "/srv/study/study.toml", "--trials=5", "--name=tiny"),
        *("--set=study.pruner=none", "--set=train.epochs=2", "--database-timeout=10m"),
    ]
    assert pod["containers"][0]["args"] == ["worker", "tiny", "--database-timeout=10m"]
    assert "kubectl create secret generic kmnist-search" in done.stderr
    assert f"kubectl delete job {job['metadata']['name']}" in done.stderr
    assert "Without --checkpoints-claim, checkpoints end with their pod" in done.stderr
    assert not Path("kmnist-search.db").exists()


def test_a_study_has_its_own_number_of_trials_if_none_is_given(invoke: Invoke) -> None:
    done = invoke("submit", "kubernetes", "quickstart", "--workers", "1", "--image", "kmnist-search", "--dry-run")
    (job,) = yaml.safe_load_all(done.stdout)
    arguments = job["spec"]["template"]["spec"]["initContainers"][0]["args"]
    assert arguments[:4] == ["submit", "queue", "quickstart", "--trials=20"]


def test_a_mistake_in_the_study_comes_before_anything_else(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    mistaken = invoke(*APPLY, "--set", "fixed.learning_rat=1", "--storage", "sqlite:///here.db")
    _refused(mistaken, "tiny.toml with fixed.learning_rat=1: ", "Did you mean 'learning_rate'?")


def test_without_kubectl_nothing_is_begun(invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    refused = invoke(*APPLY, "--storage", "postgresql://me@127.0.0.1:1/never_asked")
    _refused(refused, "Error: there is no kubectl on the PATH", "kubectl apply -f FILE")


def test_a_sqlite_file_is_no_database_for_pods(invoke: Invoke) -> None:
    _refused(
        invoke(*HERE, "--storage", "sqlite:///here.db"),
        "Error: sqlite:///here.db is a SQLite file, which only the processes of one machine can use",
        "like postgresql://user@host/database",
        "or leave --storage (KMNIST_SEARCH_STORAGE) out",
    )
    assert not Path("here.db").exists()


def test_a_database_that_cannot_be_reached_is_told_without_its_password(invoke: Invoke) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"postgresql://me:hush@127.0.0.1:{closed.getsockname()[1]}/kmnist"
        refused = invoke(*HERE, env={"KMNIST_SEARCH_STORAGE": url})
    _refused(refused, "cannot be used as a database", "me:***@127.0.0.1")
    assert "hush" not in refused.output


def test_a_postgres_of_its_own_and_another_database_exclude_each_other(invoke: Invoke) -> None:
    refused = invoke(*HERE, "--postgres", "--storage", "postgresql://me@server/kmnist")
    _refused(refused, "--postgres includes a database")


def test_a_study_with_another_space_is_refused_and_stays_as_it_is(invoke: Invoke, postgres: PostgresServer) -> None:
    url = postgres.new_database()
    assert invoke(*HERE, "--storage", url).exit_code == 0  # there is nothing yet, and nothing is made by rendering
    storage = open_storage(url, create=True)
    open_study(storage, load(Path("tiny.toml")))
    assert invoke(*HERE, "--storage", url).exit_code == 0
    refused = invoke(*HERE, "--storage", url, "--set", "space.dim={choices=[8,32]}")
    _refused(refused, "was started with other settings", "space.dim", "--name tiny-2")
    assert find_study(storage, "tiny").counts().total == 0


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a script in kubectl's place: it writes down how it was called, and fails at what `fail` names.

    It stands in for the hand-over alone: whether a cluster takes the manifests is not asked here.
    """
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "kubectl"
    script.write_text(
        "#!/bin/sh\n"
        f'echo "$*" >> {folder}/calls\n'
        f"cat > {folder}/stdin\n"
        f'if [ -e {folder}/fail ] && [ "$*" = "$(cat {folder}/fail)" ]; then\n'
        "    echo 'error: namespaces \"vision\" not found' >&2\n"
        "    exit 1\n"
        "fi\n"
        "echo job.batch/tiny created\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def test_apply_asks_the_cluster_first_and_then_hands_over_what_would_be_printed(invoke: Invoke, kubectl: Path) -> None:
    printed = invoke(*HERE).stdout
    done = invoke(*APPLY)
    assert (done.exit_code, done.stdout) == (0, "job.batch/tiny created\n"), done.output
    assert (kubectl / "calls").read_text() == "apply --dry-run=server -f -\napply -f -\n"
    assert (kubectl / "stdin").read_text() == printed
    assert "--dry-run" not in done.stderr


def test_apply_makes_study_and_queue_in_a_database_that_is_reached_from_here(
    invoke: Invoke, kubectl: Path, postgres: PostgresServer
) -> None:
    url = postgres.new_database()
    for _ in range(2):
        done = invoke(*APPLY, "--storage", url)
        assert (done.exit_code, done.stdout) == (0, "job.batch/tiny created\n"), done.output
        counts = find_study(open_storage(url, create=False), "tiny").counts()
        assert (counts.waiting, counts.total) == (5, 5)


def test_what_the_cluster_refuses_leaves_the_database_as_it_is(
    invoke: Invoke, kubectl: Path, postgres: PostgresServer
) -> None:
    url = postgres.new_database()
    (kubectl / "fail").write_text("apply --dry-run=server -f -")
    _refused(
        invoke(*APPLY, "--storage", url),
        'Error: the cluster does not accept the job, and nothing was created: error: namespaces "vision" not found',
    )
    assert study_names(open_storage(url, create=True)) == []


def test_a_cluster_that_cannot_be_reached_is_told_with_the_way_out(invoke: Invoke, kubectl: Path) -> None:
    refusal = "dial tcp 127.0.0.1:8080: connect: connection refused"
    (kubectl / "kubectl").write_text(f"#!/bin/sh\necho 'error: failed to download openapi: {refusal}' >&2\nexit 1\n")
    _refused(
        invoke(*APPLY),
        "Error: kubectl reaches no cluster, and nothing was created: error: failed to download openapi: ",
        "Choose one: kubectl config use-context NAME. Or print the manifests: --dry-run",
    )


def test_an_apply_that_fails_is_failed_work_and_can_be_done_again(invoke: Invoke, kubectl: Path) -> None:
    (kubectl / "fail").write_text("apply -f -")
    failed = invoke(*APPLY)
    assert (failed.exit_code, failed.stdout) == (1, "")
    assert 'Error: kubectl apply failed: error: namespaces "vision" not found\n' in failed.stderr
    assert "To continue, run the same command again." in failed.stderr
    (kubectl / "fail").unlink()
    assert invoke(*APPLY).exit_code == 0
