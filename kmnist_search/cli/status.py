"""The command `status`: shows the state of a study, once or until Ctrl-C.

Imports that take time wait inside the command, so that `--help` answers at once.
"""

from datetime import datetime

import click

from kmnist_search.cli.options import (
    json_option,
    print_json,
    storage_option,
    stored_study,
    study_argument,
    typed_storage,
)
from kmnist_search.wording import count


@click.command(epilog="Example: kmnist-search status quickstart --json")
@study_argument
@storage_option
@click.option("--watch", "watches", is_flag=True, help="Show it on the full screen until Ctrl-C.")
@json_option
def status(study: str | None, storage_url: str, watches: bool, as_json: bool) -> None:
    """Show how far a study has come, and who works on it.

    STUDY is its name in the storage; without it, the only one or the one last worked on.
    """
    if watches and as_json:
        raise click.UsageError("--json is printed once. Leave it or --watch out.")

    from rich.console import Console

    from kmnist_search.errors import ReadOnlyError
    from kmnist_search.study.opening import find_companion
    from kmnist_search.study.status import status_of
    from kmnist_search.study.summary import progress_summary, status_summary
    from kmnist_search.terminal.printing import print_line
    from kmnist_search.terminal.status import StatusView
    from kmnist_search.watch.watch import watch

    found = stored_study(storage_url, study)
    if watches:
        try:
            watch(Console(), found, is_over=lambda _status: False)
        except KeyboardInterrupt:
            return  # Ctrl-C is the usual end
    try:
        recovered = found.recover()
    except ReadOnlyError as error:
        recovered = []
        click.echo(f"A trial whose worker is gone could not be put back into the queue: {error}", err=True)
    status, companion = status_of(found), find_companion(found)
    retraining = None if companion is None else status_of(companion).progress
    if as_json:
        summary = None if retraining is None else progress_summary(retraining)
        print_json({**status_summary(status), "retraining": summary})
        return
    console = Console()
    console.print(StatusView(status=status, now=datetime.now()))
    if retraining is not None:
        counts = retraining.counts
        text = f"Of its retraining, {counts.finished} of {count(counts.total, 'queued training')} are finished"
        print_line(console, f"{text}: kmnist-search status {retraining.name}{typed_storage()}")
    if recovered:
        numbers = ", ".join(str(number) for number in recovered)
        console.print(f"Put back into the queue, because its worker is gone: trial {numbers}", highlight=False)
