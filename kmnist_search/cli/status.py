"""The command `status`: shows the state of a study, once or until Ctrl-C.

Slow imports are inside the command, so that `--help` answers at once.
"""

from datetime import datetime

import click

from kmnist_search.cli.options import json_option, print_json, storage_option


@click.command(epilog="Example: kmnist-search status quickstart --json")
@click.argument("study", required=False)
@storage_option
@click.option("--watch", is_flag=True, help="Fill the screen with it until Ctrl-C.")
@json_option
def status(study: str | None, storage_url: str, watch: bool, as_json: bool) -> None:
    """Show how far a study has come, and who works on it.

    STUDY is its name in the storage; without it, the only one or the one last worked on.
    """
    if watch and as_json:
        raise click.UsageError("--json is printed once. Leave it or --watch out.")

    from rich.console import Console

    from kmnist_search.database.storage import open_storage
    from kmnist_search.errors import ReadOnlyError
    from kmnist_search.study.opening import find_study
    from kmnist_search.study.status import status_of
    from kmnist_search.study.summary import status_summary
    from kmnist_search.terminal.status import StatusView
    from kmnist_search.watch import watch as watching

    found = find_study(open_storage(storage_url, create=False), study)
    if watch:
        try:
            watching.watch(Console(), found, is_over=lambda _status: False)
        except KeyboardInterrupt:
            return  # Ctrl-C is the usual end
    try:
        recovered = found.recover()
    except ReadOnlyError as error:
        recovered = []
        click.echo(f"A trial whose worker is gone could not be put back into the queue: {error}", err=True)
    status = status_of(found)
    if as_json:
        print_json(status_summary(status))
        return
    console = Console()
    console.print(StatusView(status=status, now=datetime.now()))
    if recovered:
        numbers = ", ".join(str(number) for number in recovered)
        console.print(f"Put back into the queue, because its worker is gone: trial {numbers}", highlight=False)
