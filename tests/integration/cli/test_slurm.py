"""`submit slurm` as a user meets it: what is refused before anything is made, and what Slurm is told."""

import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result

from kmnist_search.database.url import without_password
from kmnist_search.launch import sbatch
from kmnist_search.run import submission
from kmnist_search.run.search import Search
from kmnist_search.study import poller as poller
from tests.support.postgres import PostgresServer
from tests.support.slurm import OTHER_PARTITION, PARTITION, SlurmCluster, wait_for

Invoke = Callable[..., Result]

QUEUE_FIRST = "To make the queue for this script: kmnist-search submit queue, with the same study\n"
NOWHERE = "postgresql://me:s3cret@127.0.0.1:9/kmnist"  # nothing listens there


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.new_database()


@pytest.fixture(scope="module")
def occupied(slurm: SlurmCluster) -> SlurmCluster:
    """A cluster that takes jobs and starts none for now, because another has all of it."""
    slurm.do("sbatch", "--exclusive", "--job-name=other", "--output=/dev/null", "--wrap=sleep 600")
    wait_for(lambda: slurm.ask("squeue", "--noheader", "--format=%T").strip() == "RUNNING", slurm.logs)
    return slurm


@pytest.fixture
def full_slurm(occupied: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmCluster]:
    """The same for one test."""
    for name, value in occupied.environment.items():
        monkeypatch.setenv(name, value)
    yield occupied
    occupied.do("scancel", "--name=tiny")


def _is_idle(cluster: SlurmCluster) -> bool:
    return cluster.ask("squeue", "--noheader", "--format=%j").split() == ["other"]


def _submit(invoke: Invoke, *options: object) -> Result:
    return invoke("submit", "slurm", "tiny.toml", "--trials", 12, "--workers", 4, *options)


def _refused(result: Result, message: str) -> None:
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert result.stderr == f"Error: {message}\n"


def _is_untouched(postgres: PostgresServer, url: str) -> bool:
    return not postgres.execute("SELECT * FROM pg_tables WHERE schemaname = 'public'", url.rpartition("/")[2])


def test_the_tasks_that_run_at_the_same_time_can_be_limited(invoke: Invoke) -> None:
    shown = _submit(invoke, "--dry-run", "--storage", NOWHERE, "--max-running", "2")
    assert "#SBATCH --array=0-3%2\n" in shown.stdout


def test_a_dry_run_prints_the_script_and_does_nothing_else(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    shown = _submit(invoke, "--dry-run", "--storage", NOWHERE, "--time", "1:00:00", "--sbatch=--constraint=a100")
    assert (shown.exit_code, shown.stderr) == (0, QUEUE_FIRST)
    assert shown.stdout.startswith("#!/bin/bash\n#SBATCH --job-name=tiny\n#SBATCH --array=0-3\n")
    for line in (f"--output={tmp_path}/kmnist-search.logs/%A_%a.log", "--time=1:00:00", "--constraint=a100"):
        assert f"#SBATCH {line}\n" in shown.stdout
    assert f"--checkpoints {tmp_path}/kmnist-search.checkpoints" in shown.stdout
    assert "s3cret" not in shown.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.toml"]


def test_a_dry_run_needs_no_database_either(invoke: Invoke) -> None:
    shown = _submit(invoke, "--dry-run")
    assert (shown.exit_code, shown.stderr) == (0, QUEUE_FIRST)
    assert ': "${KMNIST_SEARCH_STORAGE:?must be the URL of the database: export it, then run sbatch}"' in shown.stdout


def test_tasks_without_a_gpu_do_not_look_for_one(invoke: Invoke) -> None:
    def worker(*options: str) -> str:
        shown = _submit(invoke, "--dry-run", "--storage", NOWHERE, *options).stdout
        return next(line for line in shown.splitlines() if line.endswith("&"))

    assert worker().endswith("--device auto &")
    assert worker("--gres", "none").endswith("--device cpu &")
    assert worker("--per-gpu", "3").endswith("--device auto --per-gpu 3 &")
    refused = _submit(invoke, "--dry-run", "--storage", NOWHERE, "--gres", "none", "--per-gpu", 3)
    _refused(refused, "--per-gpu 3: these tasks have no GPU, and a CPU trains one trial at a time")


def test_a_file_is_no_database_for_several_machines(invoke: Invoke, tmp_path: Path) -> None:
    _refused(
        _submit(invoke),
        "sqlite:///kmnist-search.db is a SQLite file, which only the processes of one machine can use: its locks do "
        "not work on a shared disk. Give a database on a Postgres server with --storage or KMNIST_SEARCH_STORAGE, "
        "like postgresql://user@host/database",
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.toml"]


def test_a_mistake_in_the_study_file_comes_first(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    _refused(
        _submit(invoke, "--set", "train.epoch=3"),
        "tiny.toml with train.epoch=3: [train] has no key 'epoch'. Did you mean 'epochs'?",
    )


def test_without_slurm_that_is_said_before_anything_is_made(
    invoke: Invoke, url: str, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", "")
    _refused(
        _submit(invoke, "--storage", url),
        "there is no sbatch on the PATH. Run this on a login node of a Slurm cluster (some need: module load slurm), "
        "or print the script with --dry-run.",
    )
    assert _is_untouched(postgres, url)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.toml"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--partition", "night"], "invalid partition specified: night"),
        (["--gres", "gpu:5"], "Requested node configuration is not available"),
        (["--gres", "tpu:1"], "Invalid generic resource (gres) specification"),
        (["--time", "2-0"], "Requested time limit is invalid (missing or exceeds some limit)"),
        (["--sbatch=--constraint=a100"], "Invalid feature specification"),
        (["--sbatch=--no-such-option"], "unrecognized option '--no-such-option'"),
    ],
)
def test_what_slurm_would_not_take_is_refused_in_its_words_before_anything_is_made(
    invoke: Invoke, full_slurm: SlurmCluster, postgres: PostgresServer, url: str, options: list[str], said: str
) -> None:
    result = _submit(invoke, "--storage", url, *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: Slurm does not accept this job:\n  ")
    assert said in result.stderr
    assert result.stderr.endswith("\nNothing was created or submitted.\n")
    assert _is_untouched(postgres, url)


def test_a_database_that_cannot_be_reached_is_named_without_its_password(
    invoke: Invoke, full_slurm: SlurmCluster
) -> None:
    result = _submit(invoke, "--storage", NOWHERE)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: {without_password(NOWHERE)}")
    assert "s3cret" not in result.output
    assert _is_idle(full_slurm)


def test_a_study_that_was_begun_with_another_space_is_refused(
    invoke: Invoke, full_slurm: SlurmCluster, url: str
) -> None:
    assert invoke("submit", "queue", "tiny.toml", "--storage", url).exit_code == 0
    result = _submit(invoke, "--storage", url, "--set", "space.dim={choices = [8]}")
    assert result.exit_code == 2
    assert "  space.dim.choices: [8, 16] then, [8] now\n" in result.stderr
    assert _is_idle(full_slurm)


def test_slurm_is_told_what_was_typed_whatever_the_environment_says(
    invoke: Invoke, full_slurm: SlurmCluster, url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {"PARTITION": OTHER_PARTITION, "TIMELIMIT": "7", "ARRAY_INX": "0-9", "EXPORT": "NONE"}.items():
        monkeypatch.setenv(f"SBATCH_{name}", value)
    typed = ("--partition", PARTITION, "--time", "2:00:00", "--memory", "1G", "--logs", "it's 100% ü")
    result = _submit(invoke, "--storage", url.replace("tester@", "tester:s3cret@"), *typed)
    assert result.exit_code == 0, result.output
    job = _job_of(result)
    shown = full_slurm.ask("scontrol", "--oneliner", "show", "job", job)
    told = dict(part.split("=", 1) for part in shown.split(" ") if "=" in part)
    assert (told["JobName"], told["Partition"], told["ArrayTaskId"]) == ("tiny", PARTITION, "0-3")
    assert (told["TimeLimit"], told["Requeue"], told["NumCPUs"]) == ("02:00:00", "1", "2")
    assert told["TresPerNode"] == "gres:gpu:1"
    assert f"StdOut={tmp_path}/it's 100%% ü/{job}_" in shown
    script = _script_of(full_slurm, job)
    assert "#SBATCH --signal=B:USR1@120\n" in script
    assert "s3cret" not in script + shown + result.output


def test_the_script_of_a_dry_run_can_be_submitted_by_hand(
    invoke: Invoke, full_slurm: SlurmCluster, url: str, tmp_path: Path
) -> None:
    script = _submit(invoke, "--storage", url, "--dry-run", "--time", "2:00:00", "--logs", "it's 100% ü").stdout
    job = full_slurm.submit(script, KMNIST_SEARCH_STORAGE=url)
    shown = full_slurm.ask("scontrol", "--oneliner", "show", "job", job)
    assert "JobName=tiny" in shown
    assert "TimeLimit=02:00:00" in shown
    assert f"StdOut={tmp_path}/it's 100%% ü/{job}_" in shown


def test_what_was_submitted_and_how_to_watch_and_end_it_is_said(
    invoke: Invoke, full_slurm: SlurmCluster, url: str, tmp_path: Path
) -> None:
    result = _submit(invoke, "--storage", url)
    job = _job_of(result)
    assert result.stdout.splitlines()[-5:] == [
        next(line for line in result.stdout.splitlines() if line.startswith(f"study tiny in {url}: digits, ")),
        f"job    {job}, 4 tasks with a worker each; Slurm decides when they run: squeue --job={job}",
        f"logs   {tmp_path}/kmnist-search.logs/{job}_*.log",
        f"watch  kmnist-search status tiny --watch --storage {url}",
        f"end    scancel {job}    (running trials go back to the queue; the same command adds workers again)",
    ]
    again = _submit(invoke, "--storage", url)
    assert _job_of(again) != job
    assert "0 of 12 trials are finished, 12 wait" in again.stdout


def test_a_job_that_slurm_no_longer_takes_leaves_the_queue_for_the_same_command(
    invoke: Invoke, full_slurm: SlurmCluster, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def submit_and_close(*arguments: object, **options: object) -> Search:
        made: Search = original(*arguments, **options)  # type: ignore[arg-type]
        full_slurm.do("scontrol", "update", f"PartitionName={PARTITION}", "State=INACTIVE")
        return made

    original = submission.prepare
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(submission, "prepare", submit_and_close)
        result = _submit(invoke, "--storage", url)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: Slurm did not accept the job:\n  sbatch: error: ")
    assert result.stderr.endswith(
        "\nThe study and its queue exist, and no worker runs yet. Run the same command again.\n"
    )
    full_slurm.do("scontrol", "update", f"PartitionName={PARTITION}", "State=UP")
    assert _job_of(_submit(invoke, "--storage", url))


def test_with_all_trials_finished_nothing_is_submitted(invoke: Invoke, full_slurm: SlurmCluster, url: str) -> None:
    assert invoke("run", "tiny.toml", "--trials", 1, "--storage", url).exit_code == 0
    result = invoke("submit", "slurm", "tiny.toml", "--trials", 1, "--workers", 4, "--storage", url)
    assert result.exit_code == 0
    assert result.stdout.endswith("Nothing is left to do, so nothing was submitted.\n")
    assert _is_idle(full_slurm)


def test_who_waits_for_a_study_is_told_when_nothing_is_left_that_works_on_it(
    invoke: Invoke, full_slurm: SlurmCluster, url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sbatch, "ASK_SECONDS", 0.5)
    monkeypatch.setattr(poller, "READ_SECONDS", 0.2)
    cancel = threading.Timer(15, full_slurm.do, ["scancel", "--name=tiny"])
    cancel.start()
    result = _submit(invoke, "--storage", url, "--watch")
    cancel.join()
    assert result.exit_code == 1
    job = _job_of(result)
    assert result.stderr == (
        f"Error: no task of job {job} is left, and 0 of 12 trials are finished. "
        f"The logs say why: {tmp_path}/kmnist-search.logs/{job}_*.log. To resume, run the same command again.\n"
    )


def _job_of(result: Result) -> str:
    found = re.search(r"^job    (\d+), 4 tasks", result.stdout, re.MULTILINE)
    assert found, result.output
    return found[1]


def _script_of(cluster: SlurmCluster, job: str) -> str:
    return subprocess.run(
        ["scontrol", "write", "batch_script", job, "-"], capture_output=True, text=True, check=True
    ).stdout
