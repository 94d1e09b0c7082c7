"""The command `submit kubernetes`: applies a study and its workers as manifests, or prints them.

Imports that take time wait inside the command, so that `--help` answers at once.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kmnist_search.cli.options import TIME, data_dir_option, is_given, per_gpu_option, storage_option
from kmnist_search.cli.study_options import AskedStudy, More, study_options
from kmnist_search.cli.work_options import retrain_flag

if TYPE_CHECKING:
    from kmnist_search.study_file.schema import StudyFile

CLAIM = "Name of a PersistentVolumeClaim"


@click.command(
    epilog="Example: kmnist-search submit kubernetes kmnist --trials 200 --workers 16 --image me/kmnist-search"
)
@study_options
@click.option("--workers", type=click.IntRange(1, 10_000), required=True, help="Pods, each with one worker.")
@click.option("--image", required=True, help="Image of kmnist-search, see docker/Dockerfile.")
@click.option("--namespace", help="Namespace of all manifests.  [default: that of kubectl's context]")
@click.option("--gpus", type=click.IntRange(0, 64), default=1, show_default=True, help="GPUs of a worker; 0 for CPUs.")
@per_gpu_option
@click.option("--cpus", default="4", show_default=True, help="Cores of a worker.")
@click.option("--memory", default="16Gi", show_default=True, help="Memory of a worker.")
@click.option(
    "--grace-period",
    "grace_seconds",
    type=TIME,
    default="2m",
    show_default=True,
    help="Time to save checkpoints when a pod is asked to stop; at least 15s.",
)
@click.option(
    "--secret",
    default="kmnist-search",
    show_default=True,
    help="Name of the secret with the database's URL (key storage), or with --postgres its password (key password).",
)
@click.option("--postgres", is_flag=True, help="Include a Postgres server.")
@click.option("--dashboard", is_flag=True, help="Include a dashboard.")
@click.option("--data-claim", help=f"{CLAIM} that has the images; it is only read.  [default: each pod downloads them]")
@click.option("--checkpoints-claim", help=f"{CLAIM} that all pods write to.  [default: checkpoints end with their pod]")
@click.option(
    "--artifacts",
    metavar="URL",
    envvar="KMNIST_SEARCH_ARTIFACTS",
    show_envvar=True,
    help="Bucket (s3://, gs://) for kept models and pictures; the pods need access.  [default: with the checkpoints]",
)
@retrain_flag
@storage_option
@data_dir_option
@click.option("--dry-run", is_flag=True, help="Print the manifests; create and submit nothing.")
def kubernetes(
    asked: AskedStudy,
    artifacts: str | None,
    storage_url: str,
    data_dir: Path | None,
    dry_run: bool,
    **job_options: Any,
) -> None:
    """Create a study and submit its workers as a Kubernetes job.

    STUDY is a built-in study (kmnist, kmnist-cpu, kmnist-hour, kmnist-wide, quickstart), FILE the path of a study
    file. The pods create study and queue themselves, in the database that the secret names. If --storage names the
    same database as it is reached from here, it is checked first, and study and queue are created from here.
    """
    from kmnist_search.launch import kubectl
    from kmnist_search.launch.kubernetes import KubernetesJob
    from kmnist_search.launch.kubernetes_notes import notes
    from kmnist_search.launch.yaml_text import as_yaml
    from kmnist_search.study.artifacts import check_bucket
    from kmnist_search.study_file.builtin import builtin_studies

    if artifacts is not None:
        check_bucket(artifacts)
    if isinstance(asked.trials, More):
        raise click.UsageError("--trials +N would mean more each time a pod starts. Write the trials in all.")
    file, is_builtin = asked.file(), asked.source in builtin_studies()
    job = KubernetesJob(
        study=file.study.name,
        source=asked.source if is_builtin else asked.path().read_text(encoding="utf-8"),
        is_builtin=is_builtin,
        changes=replace(asked, name=None).changes(),  # the job passes the name by itself
        trials=asked.trials if asked.trials is not None else file.study.trials,
        artifacts=artifacts,
        **job_options,
    )
    program = None if dry_run else kubectl.find()
    is_reachable = is_given("storage_url")
    if is_reachable:
        _check_database(storage_url, file, own_postgres=job.postgres)
    text = as_yaml(job.manifests())
    if program is None:
        click.echo(text, nl=False)
    else:
        kubectl.check(program, text)
        if is_reachable:
            _fill_queue(file, job.trials, storage_url, data_dir)
        click.echo(kubectl.apply(program, text), nl=False)
    for note in notes(job, is_applied=not dry_run):
        click.echo(note, err=True)


def _check_database(storage_url: str, file: "StudyFile", *, own_postgres: bool) -> None:
    """Check a database that is reached from here; create nothing.

    Raises:
        InputError: the pods cannot use it, it cannot be reached, or it has another study of the same name.
    """
    from kmnist_search.database.storage import open_storage
    from kmnist_search.database.url import check_shared_url
    from kmnist_search.errors import StorageEmptyError, StorageError
    from kmnist_search.study.opening import check_study

    if own_postgres:
        raise click.UsageError(
            "--postgres includes a database, and --storage (KMNIST_SEARCH_STORAGE) names another. "
            "Leave one of them out."
        )
    try:
        check_shared_url(storage_url)
    except StorageError as error:
        raise StorageError(f"{error}, or leave --storage (KMNIST_SEARCH_STORAGE) out: pods know theirs.") from None
    try:
        storage = open_storage(storage_url, create=False)
    except StorageEmptyError:
        return
    check_study(storage, file)
    storage.disconnect()


def _fill_queue(file: "StudyFile", trials: int, storage_url: str, data_dir: Path | None) -> None:
    from rich.console import Console

    from kmnist_search.api.work import let_go_on
    from kmnist_search.cli.submitted import announce
    from kmnist_search.run.options import RunOptions
    from kmnist_search.run.submission import prepare

    made = prepare(file, RunOptions(storage_url=storage_url, trials=trials, data_dir=data_dir))
    console = Console(stderr=True)
    let_go_on(console, made.study)
    announce(console, made)
