"""Calls of Slurm's commands: check a job, submit it, and list its tasks."""

import os
import shutil
import subprocess
import time
from collections.abc import Mapping

from kmnist_search.errors import SchedulerError, SubmissionError
from kmnist_search.launch.slurm import SlurmJob, script

#: Slurm's commands themselves give up on a controller that does not answer, after some 10 s for each of a few tries.
TIMEOUT_SECONDS = 120
#: How often to ask what has become of a job: a controller serves many users.
ASK_SECONDS = 10.0


def check_there() -> None:
    """Make sure that jobs can be submitted from here.

    Raises:
        SchedulerError: there is no Slurm.
    """
    if shutil.which("sbatch") is None:
        raise SchedulerError(
            "there is no sbatch on the PATH. Run this on a login node of a Slurm cluster (some want: module load "
            "slurm); --dry-run prints the script without."
        )


def check(job: SlurmJob) -> None:
    """Let Slurm say whether it would take a job; none is made.

    Raises:
        SchedulerError: it would not, in its own words, or it does not answer.
    """
    done = _sbatch(job, "--test-only")
    if done.returncode:
        raise SchedulerError(f"Slurm does not take this job:\n{_said(done)}\nNothing was made and nothing submitted.")


def submit(job: SlurmJob, environment: Mapping[str, str]) -> str:
    """Submit a job; return its id.

    Args:
        job: with as many tasks as it says.
        environment: what its tasks shall find in theirs, besides that of this process.

    Raises:
        SubmissionError: Slurm has not taken it, in its own words.
    """
    done = _sbatch(job, "--parsable", environment=environment)
    if done.returncode:
        raise SubmissionError(f"Slurm has not taken the job:\n{_said(done)}")
    return done.stdout.strip().partition(";")[0]  # behind it stands the cluster, where there are several


class Tasks:
    """The tasks of a job: whether any is left that waits, runs or is ending."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self._are_gone = False
        self._asked_at = -ASK_SECONDS

    def are_gone(self) -> bool:
        """Return whether none was left when this was asked before: what they did is seen by now."""
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
    """Run a command of Slurm's to its end; one that hangs has failed."""
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
        return subprocess.CompletedProcess(command, 124, "", f"{command[0]} has not answered in {TIMEOUT_SECONDS} s")


def _said(done: "subprocess.CompletedProcess[str]") -> str:
    return "\n".join(f"  {line}" for line in (done.stderr or done.stdout).splitlines())
