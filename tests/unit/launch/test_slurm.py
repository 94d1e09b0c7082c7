"""Tests of launch/slurm.py: the text of a job, and how bash runs it. Slurm itself: tests/acceptance/test_slurm.py."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kmnist_search.errors import ConfigError
from kmnist_search.launch.slurm import SlurmJob, limit_seconds, script, worker_command
from tests.support.recorded import assert_recorded

PLAIN = SlurmJob(
    name="kmnist",
    workers=16,
    command=("/venv/bin/python", "-P", "-m", "kmnist_search.cli", "worker", "kmnist", "--device", "auto"),
    log_dir=Path("/home/me/kmnist-search.logs"),
    storage_url="postgresql://me@server/kmnist",
    cpus=2,
    time="4:00:00",
)
HOSTILE = """it's "100%" $HOME `id` \\ ; & ü 平仮名 #*"""
JOBS = {
    "plain": PLAIN,
    "cpu": dataclasses.replace(PLAIN, gres=None, memory="4G", requeue=False, time=None, grace_seconds=30),
    "everything": SlurmJob(
        name=HOSTILE,
        workers=1,
        command=("/my venv/bin/python", HOSTILE),
        log_dir=Path("/sh ared/it's 100% ü"),
        storage_url=None,
        gres="gpu:a100:2",
        cpus=8,
        memory="64G",
        partition="long",
        account="lab",
        qos="high",
        time="1-12",
        grace_seconds=600,
        others=("--constraint=a100|h100", "--exclusive"),
    ),
}
#: Does as a worker does: says how it was called, stops when it is told to, and ends with the code that it is given.
WORKER = """
import json, os, signal, sys, time
stopped = []
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, lambda *_: (time.sleep(0.2), stopped.append(1)))
print(json.dumps([os.environ.get("KMNIST_SEARCH_STORAGE"), *sys.argv[2:]]), flush=True)
deadline = time.monotonic() + 30
while sys.argv[1] == "stops" and not stopped and time.monotonic() < deadline:
    time.sleep(0.01)
sys.exit(130 if sys.argv[1] == "stops" else int(sys.argv[1]))
"""


def _job(how: str, *arguments: str, **changes: object) -> SlurmJob:
    command = (sys.executable, "-c", WORKER, how, *arguments)
    return dataclasses.replace(PLAIN, command=command, **changes)  # type: ignore[arg-type]


def _bash(job: SlurmJob, **environment: str) -> "subprocess.Popen[str]":
    outside = {key: value for key, value in os.environ.items() if key != "KMNIST_SEARCH_STORAGE"}
    return subprocess.Popen(
        ["bash", "-c", script(job)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**outside, **environment},
    )


@pytest.mark.parametrize("name", JOBS)
def test_a_script_is_as_recorded(name: str) -> None:
    assert_recorded(f"slurm-{name}.sh", script(JOBS[name]))


@pytest.mark.parametrize("name", JOBS)
def test_shellcheck_has_nothing_to_say(name: str) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("shellcheck"), "--exclude=SC2016", "-"],  # $ in single quotes is meant
        input=script(JOBS[name]),
        text=True,
        capture_output=True,
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("code", [0, 1, 2])
def test_a_task_ends_as_its_worker_does(code: int) -> None:
    with _bash(_job(str(code))) as running:
        assert running.wait(240) == code


def test_whatever_stands_in_a_command_or_a_url_arrives_as_it_is() -> None:
    url = "postgresql://me@server/it's $HOME `id`"
    with _bash(_job("0", HOSTILE, "", "*", storage_url=url)) as running:
        assert json.loads(running.communicate(timeout=240)[0]) == [url, HOSTILE, "", "*"]


def test_a_url_with_a_password_comes_from_outside_and_is_missed_if_it_does_not() -> None:
    with _bash(_job("0", storage_url=None), KMNIST_SEARCH_STORAGE="postgresql://me:secret@server/kmnist") as running:
        assert json.loads(running.communicate(timeout=240)[0]) == ["postgresql://me:secret@server/kmnist"]
    with _bash(_job("0", storage_url=None)) as running:
        said = running.communicate(timeout=240)[0]
    assert running.returncode == 127
    assert "KMNIST_SEARCH_STORAGE: must be the URL of the database: export it, then run" in said


@pytest.mark.parametrize("sent", [["TERM"], ["TERM", "TERM"], ["USR1", "TERM"], ["USR1", "USR1", "TERM"]])
def test_a_task_that_is_ended_from_outside_waits_for_its_worker_and_leaves_its_return_to_slurm(sent: list[str]) -> None:
    with _bash(_job("stops")) as running:
        assert running.stdout is not None
        running.stdout.readline()
        for name in sent:
            running.send_signal(signal.Signals[f"SIG{name}"])
            time.sleep(0.05)
        said = running.communicate(timeout=240)[0]
    assert running.returncode == 130
    assert said.splitlines() == [f"Slurm sent {name}: the worker stops." for name in sent]


def test_a_task_that_shall_not_start_again_does_not_even_when_it_was_warned() -> None:
    with _bash(_job("stops", requeue=False)) as running:
        assert running.stdout is not None
        running.stdout.readline()
        running.send_signal(signal.SIGUSR1)
        assert running.communicate(timeout=240)[0] == "Slurm sent USR1: the worker stops.\n"
    assert running.returncode == 130


def test_a_task_that_is_warned_before_its_worker_has_even_begun_ends_for_good() -> None:
    """It would be so in each of its turns."""
    job = dataclasses.replace(PLAIN, command=("sh", "-c", "echo begins; exec sleep 30"))
    with _bash(job) as running:
        assert running.stdout is not None
        running.stdout.readline()
        running.send_signal(signal.SIGUSR1)
        assert running.communicate(timeout=240)[0].splitlines()[0] == "Slurm sent USR1: the worker stops."
    assert running.returncode == 128 + signal.SIGUSR1


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("1", 60),
        ("90", 5400),
        ("90:30", 5460),
        ("0:30", 60),
        ("4:00:00", 14_400),
        ("1-0", 86_400),
        ("1-12", 129_600),
        ("1-12:30", 131_400),
        ("1-12:30:01", 131_460),
        ("UNLIMITED", None),
        ("infinite", None),
    ],
)
def test_a_time_limit_is_read_as_slurm_reads_it(time: str, seconds: int | None) -> None:
    assert limit_seconds(time) == seconds


@pytest.mark.parametrize("time", ["2h", "1:2:3:4", "", "-1", "1-", "0", "0:00:00", "0-0"])
def test_a_time_limit_that_is_none_is_refused(time: str) -> None:
    with pytest.raises(ConfigError, match=f"^--time {time}: "):
        limit_seconds(time)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"time": "2", "grace_seconds": 120},
            "--grace-period 120s: must be shorter than the time limit of a task, which is 120 s (--time 2)",
        ),
        ({"partition": "a\nb"}, r"'--partition=a\nb' has a line break, which no option of sbatch can have"),
        ({"log_dir": Path("/a\\b")}, "--logs /a\\b: Slurm removes backslashes. Choose another folder."),
        (
            {"others": ("--array=0-3",)},
            "--sbatch --array=0-3: --array is set by submit slurm",
        ),
        (
            {"others": ("-C a100",)},
            "--sbatch '-C a100': write one long option of sbatch, such as --sbatch=--constraint=a100",
        ),
    ],
)
def test_a_job_that_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        dataclasses.replace(PLAIN, **changes)  # type: ignore[arg-type]
    assert str(refused.value) == message


def test_a_worker_is_the_command_of_the_python_that_submits_it_with_absolute_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = worker_command(
        "tiny",
        device="cpu",
        per_gpu=None,
        data_dir=Path("images"),
        checkpoint_dir=Path("checkpoints"),
        artifacts="s3://pictures/mine",
    )
    assert command == (
        *(sys.executable, "-P", "-m", "kmnist_search.cli", "worker", "tiny"),
        *("--data-dir", f"{tmp_path}/images", "--checkpoints", f"{tmp_path}/checkpoints"),
        *("--artifacts", "s3://pictures/mine", "--device", "cpu"),
    )


def test_several_trials_at_a_time_are_for_gpus() -> None:
    with pytest.raises(ConfigError, match=r"^--per-gpu 2: these tasks have no GPU, and a CPU trains one trial"):
        worker_command("tiny", device="cpu", per_gpu=2, data_dir=None, checkpoint_dir=Path("checkpoints"))
