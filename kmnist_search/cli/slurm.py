"""The command `submit slurm`: submits a study and its workers to Slurm.

Imports that take time wait inside the command, so that `--help` answers at once.
"""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from kmnist_search.cli.options import (
    TIME,
    artifacts_option,
    checkpoints_option,
    data_dir_option,
    device_option,
    per_gpu_option,
    storage_option,
)
from kmnist_search.cli.study_options import AskedStudy, study_options

if TYPE_CHECKING:
    from rich.console import Console

    from kmnist_search.launch.slurm import SlurmJob
    from kmnist_search.run.search import Search

#: Where checkpoints and logs go: into the folder that the command is typed in, which all nodes see on most clusters.
CHECKPOINTS, LOGS = Path("kmnist-search.checkpoints"), Path("kmnist-search.logs")


def _or_none(_ctx: click.Context, _param: click.Parameter, value: str) -> str | None:
    """Return what was asked for, or None for "none"."""
    return None if value == "none" else value


@click.command(epilog="Example: kmnist-search submit slurm kmnist --trials 200 --workers 16 --time 4:00:00")
@study_options
@click.option("--workers", type=click.IntRange(min=1), required=True, help="Tasks of the array, each with one worker.")
@click.option("--partition", help="Partition.  [default: Slurm's]")
@click.option(
    "--gres", default="gpu:1", show_default=True, callback=_or_none, help="Resources of a task; none is a CPU only."
)
@click.option("--cpus-per-task", type=click.IntRange(min=1), default=2, show_default=True, help="Cores of a task.")
@click.option("--mem", help="Memory of a task, such as 16G.  [default: the partition's]")
@click.option("--time", help="Time limit of a task, as Slurm writes it: 90, 4:00:00.  [default: the partition's]")
@click.option(
    "--grace-period",
    type=TIME,
    default="2m",
    show_default=True,
    help="Stop this long before the time limit, to save checkpoints.",
)
@click.option("--account", help="Account to charge.  [default: yours]")
@click.option("--qos", help="Quality of service.  [default: yours]")
@click.option(
    "--requeue/--no-requeue",
    default=True,
    show_default=True,
    help="Start tasks again that were preempted, lost their node or came to their time limit.",
)
@click.option(
    "--sbatch", "others", multiple=True, metavar="OPTION", help="More for sbatch: --sbatch=--constraint=a100."
)
@device_option
@per_gpu_option
@click.option(
    "--logs",
    "log_dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=LOGS,
    show_default=True,
    help="Folder of the tasks' logs; all nodes must see it.",
)
@storage_option
@checkpoints_option
@artifacts_option
@data_dir_option
@click.option("--dry-run", is_flag=True, help="Print the script, and make and submit nothing.")
@click.option("--watch", "watches", is_flag=True, help="Show the study until all its trials are finished.")
@click.pass_context
def slurm(
    context: click.Context,
    asked: AskedStudy,
    workers: int,
    partition: str | None,
    gres: str | None,
    cpus_per_task: int,
    mem: str | None,
    time: str | None,
    grace_period: float,
    account: str | None,
    qos: str | None,
    requeue: bool,
    others: tuple[str, ...],
    device: str,
    per_gpu: int | None,
    log_dir: Path,
    storage_url: str,
    checkpoint_dir: Path | None,
    artifacts: str | None,
    data_dir: Path | None,
    dry_run: bool,
    watches: bool,
) -> None:
    """Make a study and submit its workers as a Slurm job array.

    STUDY is a built-in study (kmnist, kmnist-cpu, quickstart) or the path of a study file. Given again, the same
    command adds workers to the study, and no trials.
    """
    from kmnist_search.database.url import check_shared_url, has_password, to_type
    from kmnist_search.launch.slurm import SlurmJob, script, worker_command

    file = asked.file()
    is_named = context.get_parameter_source("storage_url") is not ParameterSource.DEFAULT
    needs_no_url = dry_run and not is_named  # it comes from the environment of sbatch
    url = None if needs_no_url else check_shared_url(storage_url)
    if gres is None and device == "auto":
        device = "cpu"  # a node may show tasks the GPUs of others
    checkpoint_dir = checkpoint_dir or CHECKPOINTS
    job = SlurmJob(
        name=file.study.name,
        workers=workers,
        command=worker_command(
            file.study.name,
            device=device,
            per_gpu=per_gpu,
            data_dir=data_dir,
            checkpoint_dir=checkpoint_dir,
            artifacts=_lasting(artifacts),
        ),
        log_dir=log_dir.absolute(),
        storage_url=None if url is None or has_password(url) else storage_url,
        gres=gres,
        cpus_per_task=cpus_per_task,
        mem=mem,
        partition=partition,
        account=account,
        qos=qos,
        time=time,
        grace_seconds=round(grace_period),
        requeue=requeue,
        others=others,
    )
    if dry_run:
        click.echo(script(job), nl=False)
        return

    from rich.console import Console

    from kmnist_search.cli import submitted as submission_terminal
    from kmnist_search.host.files import check_writable
    from kmnist_search.launch import sbatch
    from kmnist_search.run.options import RunOptions
    from kmnist_search.run.submission import prepare

    sbatch.check_there()
    sbatch.check(job)
    check_writable(job.log_dir, option="--logs")
    options = RunOptions(storage_url=storage_url, trials=asked.trials, data_dir=data_dir, checkpoint_dir=checkpoint_dir)
    made = prepare(file, options)
    console = Console()
    submission_terminal.announce(console, made)
    counts = made.study.counts()
    if counts.finished >= made.goal(counts):
        click.echo("Nothing is left to do, so nothing was submitted.")
        return
    job_id = _submitted(job, storage_url)
    is_typed = context.get_parameter_source("storage_url") is ParameterSource.COMMANDLINE
    _tell(job, job_id, shlex.join(["--storage", to_type(check_shared_url(storage_url))]) if is_typed else "")
    if watches:
        _follow(console, made, job, job_id)


def _lasting(artifacts: str | None) -> str | None:
    """Return where artifacts are put as it is right in every folder.

    Raises:
        ConfigError: it is no place for artifacts.
    """
    from kmnist_search.study.artifacts import check_bucket, folder_of

    if artifacts is None:
        return None
    folder = folder_of(artifacts)
    if folder is None:
        check_bucket(artifacts)
        return artifacts
    return str(folder.absolute())


def _submitted(job: "SlurmJob", storage_url: str) -> str:
    """Submit a job whose study is made; return its id."""
    from kmnist_search.errors import SubmissionError
    from kmnist_search.launch import sbatch

    try:
        return sbatch.submit(job, {"KMNIST_SEARCH_STORAGE": storage_url})
    except SubmissionError as error:
        raise SubmissionError(
            f"{error}\nThe study and its queue are made, and nothing works on them yet. "
            "To go on: the same command again."
        ) from None


def _tell(job: "SlurmJob", job_id: str, storage: str) -> None:
    """Say what was submitted, and what to do with it."""
    tasks = "1 task with a worker" if job.workers == 1 else f"{job.workers} tasks with a worker each"
    for topic, text in {
        "job": f"{job_id}, {tasks}; Slurm decides when they run: squeue --job={job_id}",
        "logs": f"{job.log_dir}/{job_id}_*.log",
        "watch": f"kmnist-search status {job.name} --watch {storage}",
        "end": f"scancel {job_id}    (trials at work go back to the queue; the same command adds workers again)",
    }.items():
        click.echo(f"{topic:<5}  {text}".rstrip())


def _follow(console: "Console", made: "Search", job: "SlurmJob", job_id: str) -> None:
    """Show the study until it is done, or until Slurm has nothing left that works on it.

    Raises:
        SubmissionError: all tasks have ended before.
    """
    from kmnist_search.cli.submitted import follow
    from kmnist_search.errors import SubmissionError
    from kmnist_search.launch.sbatch import Tasks

    tasks = Tasks(job_id)
    counts = follow(console, made, is_hopeless=tasks.are_gone).progress.counts
    if counts.finished < made.goal(counts) and tasks.are_gone():
        raise SubmissionError(
            f"no task of job {job_id} is left, and {counts.finished} of {made.goal(counts)} trials are finished. "
            f"Why, say {job.log_dir}/{job_id}_*.log. To go on: the same command again."
        )
