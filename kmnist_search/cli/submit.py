"""The commands `submit`: create a study and its queue for workers elsewhere.

Imports that take time wait inside the commands, so that `--help` answers at once.
"""

from dataclasses import replace
from pathlib import Path

import click

from kmnist_search.cli.options import TIME, Commands, data_dir_option, storage_option, typed_storage, watch_option
from kmnist_search.cli.study_options import AskedStudy, study_options


@click.group(cls=Commands, epilog="Example: kmnist-search submit queue kmnist --trials 100")
def submit() -> None:
    """Create a study and its queue for workers on other machines."""


@submit.command(
    epilog="Example: kmnist-search submit queue kmnist --trials 100 --storage postgresql://me@server/kmnist"
)
@study_options
@storage_option
@data_dir_option
@watch_option
@click.option(
    "--database-timeout",
    type=TIME,
    help="Wait for a database that cannot be reached yet.  [default: not at all]",
)
def queue(
    asked: AskedStudy, storage_url: str, data_dir: Path | None, watches: bool, database_timeout: float | None
) -> None:
    """Create a study and its queue; you start the workers.

    STUDY is a built-in study (kmnist, kmnist-cpu, kmnist-hour, kmnist-wide, quickstart), FILE the path of a study
    file. It is safe to repeat the command, from any machine: --trials is the number of trials in all.
    """
    from contextlib import nullcontext

    from rich.console import Console

    from kmnist_search.api.work import let_go_on
    from kmnist_search.cli.submitted import announce, follow, invite
    from kmnist_search.run.join import already_reached, until_reachable
    from kmnist_search.run.options import RunOptions
    from kmnist_search.run.submission import prepare

    file = asked.file()
    options = RunOptions(storage_url=storage_url, trials=asked.budget(storage_url), data_dir=data_dir)
    if database_timeout is not None:
        for reason in until_reachable(replace(options, database_timeout=database_timeout)):
            click.echo(f"Waiting: {reason}")
    with nullcontext() if database_timeout is None else already_reached():
        made = prepare(file, options)
    console = Console()
    let_go_on(console, made.study)
    announce(console, made)
    invite(console, made)
    if watches:
        follow(console, made, options=typed_storage())
