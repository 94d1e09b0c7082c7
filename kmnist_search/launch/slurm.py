"""The script of a Slurm job: an array whose tasks are one worker each.

If asked, Slurm sends a task USR1 before its time limit. At the limit it kills the task: `--requeue` covers only node
failures and preemption. So after USR1 a task stops its worker, which saves a checkpoint and hands its trials back, and
then the task requeues itself. Bash runs traps only between commands, so the worker runs in the background, and the
script calls `wait` until the worker has ended.
"""

import math
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from kmnist_search.errors import ConfigError

#: Slurm rounds time limits up to multiples of this, in seconds.
LIMIT_UNIT = 60
#: Options of sbatch that only this package passes, besides those of a job.
RESERVED = {"error", "parsable", "test-only", "wait", "wrap"}

SCRIPT = r"""#!/bin/bash
{directives}
# Made by kmnist-search submit slurm. Each task of this array is one worker of a study.
set -u

{storage}

worker='' received='' signals=0
# shellcheck disable=SC2329 # the traps call it
pass_on() {{
    echo "Slurm sent $1: the worker stops."
    received="$received $1" signals=$((signals + 1))
    [ -z "$worker" ] || kill -s "$1" "$worker" 2>/dev/null
}}
trap 'pass_on USR1' USR1 # the time limit is near
trap 'pass_on TERM' TERM # scancel, scontrol requeue or preemption: Slurm decides whether to run this again

{command} &
worker=$!
for signal in $received; do kill -s "$signal" "$worker"; done # signals that came before the worker started

while
    before=$signals
    wait "$worker"
    status=$?
    [ "$signals" -ne "$before" ] # a signal ended the wait, not the worker
do :; done
{ending}
exit "$status"
"""

REQUEUE = r"""
if [ "$status" -eq 130 ] && [[ $received == *USR1* && $received != *TERM* ]]; then
    echo "The worker stopped before the time limit. Slurm starts this task again."
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
fi"""

STORAGE_FROM_OUTSIDE = ': "${KMNIST_SEARCH_STORAGE:?must be the URL of the database: export it, then run sbatch}"'


@dataclass(frozen=True, kw_only=True)
class SlurmJob:
    """An array of workers.

    Attributes:
        name: the job's name.
        workers: number of tasks.
        max_running: the most tasks that run at the same time; None for no limit.
        command: command line of one worker.
        log_dir: absolute path of the folder for the tasks' logs.
        storage_url: URL of the database; None if it has a password and is passed in sbatch's environment.
        gres: generic resources of a task, such as gpu:1; None for none.
        time: time limit of a task in Slurm's format; None for the partition's own.
        grace_seconds: seconds between the signal to stop and the time limit.
        requeue: whether tasks start again after preemption, a node failure or the time limit.
        others: further options of sbatch, such as --constraint=a100.
    """

    name: str
    workers: int
    max_running: int | None = None
    command: tuple[str, ...]
    log_dir: Path
    storage_url: str | None
    gres: str | None = "gpu:1"
    cpus: int | None = None
    memory: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    time: str | None = None
    grace_seconds: int = 120
    requeue: bool = True
    others: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        limit = None if self.time is None else limit_seconds(self.time)
        if limit is not None and self.grace_seconds >= limit:
            raise ConfigError(
                f"--grace-period {self.grace_seconds}s: must be shorter than the time limit of a task, which is "
                f"{limit} s (--time {self.time})"
            )
        for other in self.others:
            self._check_other(other)
        for argument in self.arguments():
            if re.search(r"[\r\n]", argument):
                raise ConfigError(f"{argument!r} has a line break, which no option of sbatch can have")
        if "\\" in str(self.log_dir):
            raise ConfigError(f"--logs {self.log_dir}: Slurm removes backslashes. Choose another folder.")

    def options(self) -> dict[str, str | int | None]:
        """Return the options of sbatch and their values; True for a flag, False or None to leave the option out."""
        log = str(self.log_dir).replace("%", "%%") + "/%A_%a.log"
        return {
            "job-name": self.name,
            "array": f"0-{self.workers - 1}" + ("" if self.max_running is None else f"%{self.max_running}"),
            "ntasks": 1,
            "gres": self.gres,
            "cpus-per-task": self.cpus,
            "mem": self.memory,
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "time": self.time,
            "signal": f"B:USR1@{self.grace_seconds}",
            "requeue": self.requeue,
            "no-requeue": not self.requeue,
            "open-mode": "append",
            "output": log,
            "export": "ALL",
        }

    def arguments(self) -> list[str]:
        """Return the options as arguments, which override SBATCH_* variables in the environment."""
        given = {option: value for option, value in self.options().items() if value is not None and value is not False}
        own = [f"--{option}" if value is True else f"--{option}={value}" for option, value in given.items()]
        return [*own, *self.others]

    def _check_other(self, option: str) -> None:
        name = option.removeprefix("--").partition("=")[0]
        if not re.fullmatch(r"--[a-z][a-z-]*(=.*)?", option, re.DOTALL):
            raise ConfigError(
                f"--sbatch {option!r}: write one long option of sbatch, such as --sbatch=--constraint=a100"
            )
        if name in RESERVED | self.options().keys():
            raise ConfigError(f"--sbatch {option}: --{name} is set by submit slurm")


def worker_command(
    study: str,
    *,
    device: str,
    per_gpu: int | None,
    data_dir: Path | None,
    checkpoint_dir: Path,
    artifacts: str | None = None,
    result: Path | None = None,
    force: bool = False,
) -> tuple[str, ...]:
    """Return the command of one worker. It uses the Python that submits the job, since PATH differs on nodes.

    With a folder for its `result`, the winner is retrained, too; with `force` an earlier result is replaced.

    Raises:
        ConfigError: a worker would reject the options.
    """
    if device == "cpu" and per_gpu is not None and per_gpu > 1:
        raise ConfigError(f"--per-gpu {per_gpu}: these tasks have no GPU, and a CPU trains one trial at a time")
    options = {
        "--data-dir": None if data_dir is None else str(data_dir.absolute()),
        "--checkpoints": str(checkpoint_dir.absolute()),
        "--artifacts": artifacts,
        "--device": device,
        "--per-gpu": None if per_gpu is None else str(per_gpu),
        "--out": None if result is None else str(result.absolute()),
    }
    retrain = () if result is None else ("--retrain", "--force") if force else ("--retrain",)
    # -P: the working folder is not searched for modules, as with the installed command.
    start = (sys.executable, "-P", "-m", "kmnist_search.cli", "worker", study, *retrain)
    return (*start, *(part for option, value in options.items() if value is not None for part in (option, value)))


def script(job: SlurmJob) -> str:
    """Return the batch script of a job."""
    return SCRIPT.format(
        directives="\n".join(f"#SBATCH {shlex.quote(argument)}" for argument in job.arguments()),
        storage=STORAGE_FROM_OUTSIDE
        if job.storage_url is None
        else f"export KMNIST_SEARCH_STORAGE={shlex.quote(job.storage_url)}",
        command=shlex.join(job.command),
        ending=REQUEUE if job.requeue else "",
    )


def limit_seconds(time: str) -> int | None:
    """Return the seconds of a time limit in Slurm's format; None if it is unlimited.

    Raises:
        ConfigError: Slurm has no such format.
    """
    if time.lower() in ("unlimited", "infinite"):
        return None
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", time)
    if match is None:
        raise ConfigError(
            f"--time {time}: write it as Slurm does: 90 (minutes), 4:00:00 or 1-12:00:00 (a day and a half)"
        )
    days, *rest = match.groups()
    numbers = [int(number) for number in rest if number is not None]
    # With days: hours, minutes, seconds. Without days: minutes; minutes, seconds; or hours, minutes, seconds.
    units = [3600, 60, 1] if days is not None or len(numbers) == 3 else [60, 1]
    seconds = 86_400 * int(days or 0) + sum(unit * number for unit, number in zip(units, numbers, strict=False))
    if not seconds:
        raise ConfigError(f"--time {time}: leaves no time to work")
    return math.ceil(seconds / LIMIT_UNIT) * LIMIT_UNIT
