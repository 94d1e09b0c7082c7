"""The commands `studies`: list, show, rename, delete, export, import and copy whole studies.

Imports that take time wait inside the commands, so that `--help` answers at once.
"""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kmnist_search.cli.options import Commands, artifacts_option, json_option, print_json, storage_option

if TYPE_CHECKING:
    from kmnist_search.archive.studies import Arrival
    from kmnist_search.database.storage import Storage


@click.group(
    cls=Commands,
    invoke_without_command=True,
    epilog="Example: kmnist-search studies --storage sqlite:///kmnist-search.db",
)
@storage_option
@json_option
@click.pass_context
def studies(ctx: click.Context, storage_url: str, as_json: bool) -> None:
    """List, show, move and delete studies.

    Without a command it lists the studies of a storage, the one last worked on first.
    """
    if ctx.invoked_subcommand is not None:
        if as_json:
            raise click.UsageError(f"--json belongs after the command: studies {ctx.invoked_subcommand} ... --json")
        return

    from rich.console import Console

    from kmnist_search.database.storage import open_storage
    from kmnist_search.study.opening import find_study, study_names
    from kmnist_search.study.status import status_of
    from kmnist_search.study.summary import progress_summary
    from kmnist_search.terminal.tables import studies_view

    storage = open_storage(storage_url, create=False)
    progress = [status_of(find_study(storage, name)).progress for name in study_names(storage)]
    if as_json:
        print_json([progress_summary(each) for each in progress])
    else:
        Console().print(studies_view(progress))


@studies.command(epilog="Example: kmnist-search studies show quickstart")
@click.argument("name")
@storage_option
@json_option
def show(name: str, storage_url: str, as_json: bool) -> None:
    """Print the study file of a study, as the database remembers it.

    Write it to a file: kmnist-search run FILE resumes the study, or repeats it in another database.
    """
    from kmnist_search.database.storage import open_storage
    from kmnist_search.study.opening import find_study
    from kmnist_search.study_file.writer import as_toml

    storage = open_storage(storage_url, create=False)
    study = find_study(storage, name)
    counts = study.counts()
    if as_json:
        trials = {**asdict(counts), "finished": counts.finished, "total": counts.total}
        print_json({"study": study.name, "trials": trials, "settings": study.settings})
        return
    states = ", ".join(f"{number} {state}" for state, number in asdict(counts).items() if number)
    facts = [f"study {study.name} in {storage.shown_url}", f"{_trials(counts.total)}{f': {states}' if states else ''}"]
    click.echo(as_toml(study.settings, facts=facts), nl=False)


@studies.command(epilog="Example: kmnist-search studies rename quickstart first-try")
@click.argument("old")
@click.argument("new")
@click.option("--force", is_flag=True, help="Rename it even while trials of it run; their workers keep running.")
@storage_option
def rename(old: str, new: str, force: bool, storage_url: str) -> None:
    """Give a study another name.

    To resume it, give the new name: kmnist-search run FILE --name NEW.
    """
    from kmnist_search.archive.studies import rename_study
    from kmnist_search.database.storage import open_storage

    storage = open_storage(storage_url, create=False)
    rename_study(storage, old, new, force=force)
    click.echo(f"study {old} in {storage.shown_url} is called {new} now")


@studies.command(epilog="Example: kmnist-search studies delete quickstart --yes")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Delete it even while trials of it run; their workers will end.")
@artifacts_option
@storage_option
def delete(name: str, yes: bool, force: bool, artifacts: str | None, storage_url: str) -> None:
    """Delete a study with its trials, checkpoints and artifacts."""
    from kmnist_search.archive.studies import delete_study
    from kmnist_search.database.storage import default_artifact_dir, open_storage
    from kmnist_search.study.artifacts import open_artifact_store
    from kmnist_search.study.opening import find_study

    storage = open_storage(storage_url, create=False)
    store = open_artifact_store(artifacts, storage.url)
    if not yes:
        counts = find_study(storage, name).counts()
        lost = f"{_trials(counts.total)} ({counts.complete} complete)"
        click.confirm(f"Delete study {name} in {storage.shown_url} and lose its {lost}?", abort=True, err=True)
    deleted = delete_study(storage, name, force=force, store=store)
    click.echo(f"study {name} with {_trials(deleted.num_trials)} is deleted from {storage.shown_url}")
    if deleted.num_missing:
        click.echo(
            f"{deleted.num_missing} of its {deleted.num_artifacts} artifacts were not in "
            f"{artifacts or default_artifact_dir(storage.url)}; if they lie elsewhere, they lie there still",
            err=True,
        )


@studies.command(epilog="Example: kmnist-search studies export quickstart quickstart.jsonl")
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@storage_option
def export(name: str, file: Path, storage_url: str) -> None:
    """Write a study to one file that any kmnist-search can import.

    FILE is JSON lines, the study and then one trial a line; - is the standard output. It is written whole or not at
    all, and shows the study as it is at one moment, also while it is worked on.
    """
    from kmnist_search.archive.studies import export_study, write_study
    from kmnist_search.database.storage import open_storage

    storage = open_storage(storage_url, create=False)
    if str(file) == "-":
        write_study(storage, name, sys.stdout.buffer)
        return
    num_trials = export_study(storage, name, file)
    click.echo(f"study {name} with {_trials(num_trials)} is in {file}")


@studies.command("import", epilog="Example: kmnist-search studies import quickstart.jsonl --name quickstart-2")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--name", help="Name of the study in the storage.  [default: the file's]")
@storage_option
def import_(file: Path, name: str | None, storage_url: str) -> None:
    """Put a study that was exported into a storage, whole or not at all.

    FILE is what export wrote; - is the standard input. A trial that was running then waits here. Checkpoints are not
    part of the file: a waiting trial begins anew.
    """
    from kmnist_search.archive.studies import import_study, receive_study
    from kmnist_search.database.storage import open_storage

    storage = open_storage(storage_url, create=True)
    if str(file) == "-":
        arrival = receive_study(storage, sys.stdin.buffer, Path("standard input"), name)
    else:
        arrival = import_study(storage, file, name)
    _say_arrived(arrival, storage)


@studies.command(epilog="Example: kmnist-search studies copy quickstart --to postgresql://user@host/database")
@click.argument("name")
@click.option("--to", "target_url", metavar="URL", required=True, help="Database to put the copy into.")
@click.option("--name", "new_name", metavar="TEXT", help="Name of the copy.  [default: the same]")
@storage_option
def copy(name: str, target_url: str, new_name: str | None, storage_url: str) -> None:
    """Copy a study into another storage, whole or not at all.

    A trial that runs in the one waits in the other, and begins anew there.
    """
    from kmnist_search.archive.studies import copy_study
    from kmnist_search.database.storage import open_storage

    source = open_storage(storage_url, create=False)
    target = open_storage(target_url, create=True)
    _say_arrived(copy_study(source, name, target, new_name), target)


def _say_arrived(arrival: "Arrival", storage: "Storage") -> None:
    click.echo(f"study {arrival.name} with {_trials(arrival.num_trials)} is in {storage.shown_url}")
    if arrival.num_requeued:
        click.echo(f"{_trials(arrival.num_requeued)} that ran where it comes from: waiting here")


def _trials(number: int) -> str:
    return "1 trial" if number == 1 else f"{number:,} trials"
