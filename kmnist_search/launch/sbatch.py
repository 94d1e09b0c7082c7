"""Calls of Slurm's commands: check a job, submit it, and list its tasks."""

import os
import shutil
import subprocess
import time
from collections.abc import Mapping

from kmnist_search.errors import SchedulerError, SubmissionError
from kmnist_search.launch.slurm import SlurmJob, script

#: Seconds for one command. Slurm's commands give up on a silent controller after a few tries of some 10 s.
TIMEOUT_SECONDS = 120
#: Seconds between two queries of a job: a controller serves many users.
ASK_SECONDS = 10.0


def check_there() -> None:
    """Check that jobs can be submitted from here.

    Raises:
        SchedulerError: Slurm is not installed.
    """
    if shutil.which("sbatch") is None:
        raise SchedulerError(
            "there is no sbatch on the PATH. Run this on a login node of a Slurm cluster (some need: module load "
            "slurm), or print the script with --dry-run."
        )


def check(job: SlurmJob) -> None:
    """Ask Slurm whether it would accept a job; nothing is submitted.

    Raises:
        SchedulerError: it would not (Slurm's message), or it does not answer.
    """
    done = _sbatch(job, "--test-only")
    if done.returncode:
        raise SchedulerError(f"Slurm does not accept this job:\n{_said(done)}\nNothing was created or submitted.")


def submit(job: SlurmJob, environment: Mapping[str, str]) -> str:
    """Submit a job and return its id.

    Args:
        job: the job.
        environment: variables for its tasks, added to those of this process.

    Raises:
        SubmissionError: Slurm did not accept it (Slurm's message).
    """
    done = _sbatch(job, "--parsable", environment=environment)
    if done.returncode:
        raise SubmissionError(f"Slurm did not accept the job:\n{_said(done)}")
    return done.stdout.strip().partition(";")[0]  # where there are several clusters, the name of one follows


class Tasks:
    """The tasks of a job that still wait, run or are ending."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self._are_gone = False
        self._asked_at = -ASK_SECONDS

    def are_gone(self) -> bool:
        """Return whether the previous query found no task; by now their results can be seen."""
        if self._are_gone:
            return True
        now = time.monotonic()
        if now - self._asked_at >= ASK_SECONDS:
            self._asked_at = now
            self._are_gone = _tasks_left(self.job_id) == 0
        return False


def _tasks_left(job_id: str) -> int | None:
    """Return how many tasks of a job wait, run or are ending; None if Slurm does not answer."""
    done = _run("squeue", "--noheader", "--array", f"--jobs={job_id}", "--format=%i")
    if done.returncode and "Invalid job id" not in done.stderr:  # it forgets jobs minutes after their end
        return None
    return len(done.stdout.split())


def _sbatch(
    job: SlurmJob, how: str, environment: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    return _run("sbatch", how, *job.arguments(), given=script(job), environment=environment)


def _run(
    *command: str, given: str | None = None, environment: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a Slurm command; a command that hangs counts as failed."""
    try:
        return subprocess.run(
            command,
            input=given,
            stdin=None if given is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            env={**os.environ, **(environment or {})},
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"{command[0]} did not answer in {TIMEOUT_SECONDS} s")


def _said(done: "subprocess.CompletedProcess[str]") -> str:
    return "\n".join(f"  {line}" for line in (done.stderr or done.stdout).splitlines())
