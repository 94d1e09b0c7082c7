"""The commands `studies`: list, show, rename, delete, export, import and copy whole studies.

Imports that take time wait inside the commands, so that `--help` answers at once.
"""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kmnist_search.cli.completion import study_names
from kmnist_search.cli.options import (
    Commands,
    artifacts_option,
    json_option,
    print_json,
    storage_option,
    stored_study,
)
from kmnist_search.wording import count

if TYPE_CHECKING:
    from kmnist_search.archive.studies import Arrival
    from kmnist_search.database.storage import Storage

study_argument = click.argument("study", shell_complete=study_names)
name_option = click.option("--name", metavar="NAME", help="Name of the study there.  [default: the same]")


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
@study_argument
@storage_option
@json_option
def show(study: str, storage_url: str, as_json: bool) -> None:
    """Print the study file of a study, as the database stores it.

    Write it to a file: kmnist-search run FILE resumes the study, or repeats it in another database.
    """
    from kmnist_search.study_file.writer import as_toml

    found = stored_study(storage_url, study)
    counts = found.counts()
    if as_json:
        trials = {**asdict(counts), "finished": counts.finished, "total": counts.total}
        print_json({"study": found.name, "trials": trials, "settings": found.settings})
        return
    states = "".join(f", {number} {state}" for state, number in asdict(counts).items() if number)
    facts = [
        f"study {found.name} in {found.storage.shown_url}",
        count(counts.total, "trial") + states.replace(",", ":", 1),
    ]
    click.echo(as_toml(found.settings, facts=facts), nl=False)


@studies.command(epilog="Example: kmnist-search studies ledger quickstart")
@click.argument("study", required=False, shell_complete=study_names)
@storage_option
@json_option
def ledger(study: str | None, storage_url: str, as_json: bool) -> None:
    """Show each frozen recipe of a study, and each look at the test set.

    A recipe is frozen before a model of it is tested. A look is noted before it is had, and counts even if it was
    interrupted. Choosing among several recipes by their test accuracies would make these too optimistic.
    """
    from rich.console import Console

    from kmnist_search.evaluation.ledger import Ledger
    from kmnist_search.terminal.tables import ledger_view

    found = stored_study(storage_url, study)
    if source := found.settings["study"].get("retrains"):
        found = stored_study(storage_url, source)
    recipes, openings = Ledger(found).recipes(), Ledger(found).openings()
    if as_json:
        print_json(
            {
                "study": found.name,
                "recipes": [each.model_dump(mode="json") for each in recipes],
                "looks": [each.model_dump(mode="json") for each in openings],
            }
        )
    else:
        Console().print(ledger_view(found.name, recipes, openings))


@studies.command(epilog="Example: kmnist-search studies rename quickstart first-try")
@study_argument
@click.argument("name")
@click.option("--force", is_flag=True, help="Rename it even while trials of it run; their workers keep running.")
@storage_option
def rename(study: str, name: str, force: bool, storage_url: str) -> None:
    """Give a study another name.

    To resume it, give the new name: kmnist-search run FILE --name NAME.
    """
    from kmnist_search.archive.studies import rename_study
    from kmnist_search.database.storage import open_storage

    storage = open_storage(storage_url, create=False)
    rename_study(storage, study, name, force=force)
    click.echo(f"study {study} in {storage.shown_url} is called {name} now")


@studies.command(epilog="Example: kmnist-search studies delete quickstart --yes")
@study_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Delete it even while trials of it run; their workers will end.")
@artifacts_option
@storage_option
def delete(study: str, yes: bool, force: bool, artifacts: str | None, storage_url: str) -> None:
    """Delete a study with its trials, checkpoints and artifacts."""
    from kmnist_search.archive.studies import delete_study
    from kmnist_search.database.storage import default_artifact_dir, open_storage
    from kmnist_search.evaluation.ledger import Ledger
    from kmnist_search.study.artifacts import open_artifact_store
    from kmnist_search.study.opening import find_companion, find_study

    storage = open_storage(storage_url, create=False)
    store = open_artifact_store(artifacts, storage.url)
    if not yes:
        found = find_study(storage, study)
        counts, companion = found.counts(), find_companion(found)
        lost = f"{count(counts.total, 'trial')} ({counts.complete} complete)"
        if companion is not None:
            lost += f", its retraining ({count(companion.counts().total, 'training')})"
        if looks := len(Ledger(found).openings()):
            lost += f" and its ledger ({count(looks, 'look')} at the test set)"
        click.confirm(f"Delete study {study} in {storage.shown_url} and lose its {lost}?", abort=True, err=True)
    deleted = delete_study(storage, study, force=force, store=store)
    click.echo(f"study {study} with {count(deleted.num_trials, 'trial')} is deleted from {storage.shown_url}")
    if deleted.num_missing:
        click.echo(
            f"{deleted.num_missing} of its {deleted.num_artifacts} artifacts were not in "
            f"{artifacts or default_artifact_dir(storage.url)}. If they are elsewhere, they are still there.",
            err=True,
        )


@studies.command(epilog="Example: kmnist-search studies export quickstart quickstart.jsonl")
@study_argument
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@storage_option
def export(study: str, file: Path, storage_url: str) -> None:
    """Write a study to one file that any kmnist-search can import.

    FILE is JSON lines, the study and then one trial a line; - is the standard output. It is written completely or not
    at all, and shows the study at one moment, also while trials of it run.
    """
    from kmnist_search.archive.studies import export_study, write_study
    from kmnist_search.database.storage import open_storage

    storage = open_storage(storage_url, create=False)
    if str(file) == "-":
        write_study(storage, study, sys.stdout.buffer)
        return
    num_trials = export_study(storage, study, file)
    click.echo(f"study {study} with {count(num_trials, 'trial')} is in {file}")


@studies.command("import", epilog="Example: kmnist-search studies import quickstart.jsonl --name quickstart-2")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@name_option
@storage_option
def import_(file: Path, name: str | None, storage_url: str) -> None:
    """Add an exported study to a storage, completely or not at all.

    FILE is what export wrote; - is the standard input. A trial that was running then waits here. Checkpoints are not
    part of the file: a waiting trial starts from the beginning.
    """
    from kmnist_search.archive.studies import import_study
    from kmnist_search.database.storage import open_storage

    storage = open_storage(storage_url, create=True)
    _print_arrival(import_study(storage, file, name), storage)


@studies.command(epilog="Example: kmnist-search studies copy quickstart --to postgresql://user@host/database")
@study_argument
@click.option("--to", "target_url", metavar="URL", required=True, help="Database to put the copy into.")
@name_option
@storage_option
def copy(study: str, target_url: str, name: str | None, storage_url: str) -> None:
    """Copy a study into another storage, completely or not at all.

    A trial that runs in the source waits in the copy, and starts from the beginning there.
    """
    from kmnist_search.archive.studies import copy_study
    from kmnist_search.database.storage import open_storage

    source = open_storage(storage_url, create=False)
    target = open_storage(target_url, create=True)
    _print_arrival(copy_study(source, study, target, name), target)


def _print_arrival(arrival: "Arrival", storage: "Storage") -> None:
    click.echo(f"study {arrival.name} with {count(arrival.num_trials, 'trial')} is in {storage.shown_url}")
    if arrival.num_requeued:
        click.echo(f"{count(arrival.num_requeued, 'trial')} ran in the source: waiting here")
