"""The command `submit slurm`: submits a study and its workers to Slurm.

Imports that take time wait inside the command, so that `--help` answers at once.
"""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kmnist_search.cli.options import (
    TIME,
    artifacts_option,
    checkpoints_option,
    data_dir_option,
    device_option,
    is_given,
    is_typed,
    per_gpu_option,
    storage_option,
    typed_storage,
    watch_option,
)
from kmnist_search.cli.study_options import AskedStudy, study_options
from kmnist_search.cli.work_options import check_result_options, result_options, retrain_flag

if TYPE_CHECKING:
    from rich.console import Console

    from kmnist_search.launch.slurm import SlurmJob
    from kmnist_search.run.options import RunOptions
    from kmnist_search.run.search import Search
    from kmnist_search.study_file.schema import StudyFile

#: Folders in the folder where the command is typed. On most clusters all nodes see it.
CHECKPOINTS, ARTIFACTS, LOGS = (Path(f"kmnist-search.{what}") for what in ("checkpoints", "artifacts", "logs"))


def _or_none(_ctx: click.Context, _param: click.Parameter, value: str) -> str | None:
    """Return the value, or None for "none"."""
    return None if value == "none" else value


@click.command(epilog="Example: kmnist-search submit slurm kmnist --trials 200 --workers 16 --time 4:00:00")
@study_options
@click.option("--workers", type=click.IntRange(min=1), required=True, help="Tasks of the array, each with one worker.")
@click.option("--max-running", type=click.IntRange(min=1), help="The most tasks at the same time.  [default: no limit]")
@click.option("--partition", help="Partition.  [default: Slurm's]")
@click.option(
    "--gres", default="gpu:1", show_default=True, callback=_or_none, help="Resources of a task; none is a CPU only."
)
@click.option("--cpus", type=click.IntRange(min=1), default=2, show_default=True, help="Cores of a worker.")
@click.option("--memory", help="Memory of a worker, such as 16G.  [default: the partition's]")
@click.option("--time", help="Time limit of a task, as Slurm writes it: 90, 4:00:00.  [default: the partition's]")
@click.option(
    "--grace-period",
    "grace_seconds",
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
    help="Start tasks again that were preempted, lost their node or reached their time limit.",
)
@click.option(
    "--sbatch", "others", multiple=True, metavar="OPTION", help="More for sbatch: --sbatch=--constraint=a100."
)
@device_option
@per_gpu_option
@click.option(
    "--logs",
    "log_dir",
    metavar="FOLDER",
    type=click.Path(path_type=Path, file_okay=False),
    default=LOGS,
    show_default=True,
    help="Folder for the tasks' logs; all nodes must see it.",
)
@retrain_flag
@result_options
@storage_option
@checkpoints_option
@artifacts_option
@data_dir_option
@click.option("--dry-run", is_flag=True, help="Print the script; create and submit nothing.")
@watch_option
def slurm(
    asked: AskedStudy,
    gres: str | None,
    device: str,
    per_gpu: int | None,
    log_dir: Path,
    storage_url: str,
    checkpoint_dir: Path | None,
    artifacts: str | None,
    data_dir: Path | None,
    dry_run: bool,
    watches: bool,
    retrains: bool,
    out: Path | None,
    force: bool,
    **job_options: Any,
) -> None:
    """Create a study and submit its workers as a Slurm job array.

    STUDY is a built-in study (kmnist, kmnist-cpu, kmnist-hour, kmnist-wide, quickstart), FILE the path of a study
    file. The same command again adds workers to the study, and no trials. With --retrain the tasks also retrain the
    winner, and the last one writes model and report.
    """
    from kmnist_search.database.url import check_shared_url, has_password
    from kmnist_search.launch.slurm import SlurmJob, script, worker_command

    check_result_options(retrains=retrains)
    file = asked.file()
    needs_url = is_given("storage_url") or not dry_run  # a printed script may get it from sbatch's environment
    url = check_shared_url(storage_url) if needs_url else None
    checkpoint_dir, result = checkpoint_dir or CHECKPOINTS, out or Path(f"{file.study.name}-best")
    if retrains and artifacts is None:
        artifacts = str(ARTIFACTS)  # for the models: all nodes must see them
    job = SlurmJob(
        name=file.study.name,
        command=worker_command(
            file.study.name,
            device="cpu" if gres is None and device == "auto" else device,  # a node may show tasks the GPUs of others
            per_gpu=per_gpu,
            data_dir=data_dir,
            checkpoint_dir=checkpoint_dir,
            artifacts=_absolute(artifacts),
            result=result if retrains else None,
            force=force,
        ),
        log_dir=log_dir.absolute(),
        storage_url=None if url is None or has_password(url) else storage_url,
        gres=gres,
        **job_options,
    )
    if dry_run:
        click.echo(script(job), nl=False)
        click.echo("To make the queue for this script: kmnist-search submit queue, with the same study", err=True)
        return

    from kmnist_search.api.planned import check_result_folder
    from kmnist_search.run.options import RunOptions

    if retrains:
        check_result_folder(file.study.name, out, force=force)
    options = RunOptions(
        storage_url=storage_url, trials=asked.budget(storage_url), data_dir=data_dir, checkpoint_dir=checkpoint_dir
    )
    _submit(job, file, options, watches=watches, retrains=retrains)


def _submit(job: "SlurmJob", file: "StudyFile", options: "RunOptions", *, watches: bool, retrains: bool) -> None:
    """Create a study and its queue, and submit a job for it. Slurm and the log folder are checked first."""
    from rich.console import Console

    from kmnist_search.api.work import let_go_on
    from kmnist_search.cli.submitted import announce
    from kmnist_search.host.files import check_writable
    from kmnist_search.launch import sbatch
    from kmnist_search.run.submission import prepare

    sbatch.check_there()
    sbatch.check(job)
    check_writable(job.log_dir, option="--logs")
    made = prepare(file, options)
    console = Console()
    let_go_on(console, made.study)
    announce(console, made)
    counts = made.study.counts()
    if counts.finished >= made.goal(counts) and not retrains:
        click.echo("Nothing is left to do, so nothing was submitted.")
        return
    job_id = _submitted(job, options.storage_url)
    _describe(job, job_id, options.storage_url if is_typed("storage_url") else None)
    if watches:
        _follow(console, made, job, job_id)


def _absolute(artifacts: str | None) -> str | None:
    """Return the place of artifacts, a folder as an absolute path.

    Raises:
        ConfigError: it is neither a folder nor a bucket.
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
    """Submit a job whose study exists; return its id."""
    from kmnist_search.errors import SubmissionError
    from kmnist_search.launch import sbatch

    try:
        return sbatch.submit(job, {"KMNIST_SEARCH_STORAGE": storage_url})
    except SubmissionError as error:
        raise SubmissionError(
            f"{error}\nThe study and its queue exist, and no worker runs yet. Run the same command again."
        ) from None


def _describe(job: "SlurmJob", job_id: str, storage_url: str | None) -> None:
    """Print what was submitted, and how to watch and end it."""
    from kmnist_search.database.url import check_shared_url, to_type

    tasks = "1 task with a worker" if job.workers == 1 else f"{job.workers} tasks with a worker each"
    storage = "" if storage_url is None else f" {shlex.join(['--storage', to_type(check_shared_url(storage_url))])}"
    click.echo(f"job    {job_id}, {tasks}; Slurm decides when they run: squeue --job={job_id}")
    click.echo(f"logs   {job.log_dir}/{job_id}_*.log")
    click.echo(f"watch  kmnist-search status {job.name} --watch{storage}")
    click.echo(f"end    scancel {job_id}    (running trials go back to the queue; the same command adds workers again)")


def _follow(console: "Console", made: "Search", job: "SlurmJob", job_id: str) -> None:
    """Show the study until it is finished, or until no task of the job is left.

    Raises:
        SubmissionError: no task is left, but trials are.
    """
    from kmnist_search.cli.submitted import follow
    from kmnist_search.errors import SubmissionError
    from kmnist_search.launch.sbatch import Tasks

    tasks = Tasks(job_id)
    counts = follow(console, made, options=typed_storage(), is_hopeless=tasks.are_gone).progress.counts
    if counts.finished < made.goal(counts) and tasks.are_gone():
        raise SubmissionError(
            f"no task of job {job_id} is left, and {counts.finished} of {made.goal(counts)} trials are finished. "
            f"The logs say why: {job.log_dir}/{job_id}_*.log. To resume, run the same command again."
        )
