"""The command `worker`: joins a study and trains its trials.

Imports that take time wait inside the command, so that `--help` answers at once.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import click

from kmnist_search.cli.options import (
    INTERRUPTED,
    TIME,
    WORK_FAILED,
    set_up_runtimes,
    study_argument,
    typed_command,
    typed_storage,
)
from kmnist_search.cli.work_options import devices_here, work_options

if TYPE_CHECKING:
    from kmnist_search.host.signals import StopSignals
    from kmnist_search.run.options import RunOptions


def _name_today(option: str) -> str:
    """Return the present name of an option: jobs that an earlier version queued say --max-time."""
    return "timeout" if option == "max-time" else option


@click.command(
    epilog="Example: kmnist-search worker kmnist --storage postgresql://me@server/kmnist --timeout 55m",
    context_settings={"token_normalize_func": _name_today},
)
@study_argument
@click.option(
    "--wait", "waits", is_flag=True, help="Keep running when the queue is empty; also wait for the study to be created."
)
@click.option("--max-trials", type=click.IntRange(min=1), help="Stop after this many trials of each process.")
@click.option("--timeout", type=TIME, help="Stop after this time, such as 55m: before a limit that kills.")
@work_options
@click.option(
    "--is-alive", is_flag=True, help="Only check: exit with 0 if a worker of this host was seen lately, else with 1."
)
def worker(
    study: str | None,
    waits: bool,
    max_trials: int | None,
    timeout: float | None,
    options: "RunOptions",
    is_alive: bool,
) -> None:
    """Join a study and train its trials until the queue is empty.

    STUDY is its name in the storage; without it, the only one or the one last worked on. The study has its own
    settings: a worker needs only the images. One process works on each GPU.
    """
    if is_alive:
        _exit_by_liveness(options.storage_url)
    set_up_runtimes()

    from rich.console import Console

    from kmnist_search.cli.run_workers import run_workers
    from kmnist_search.database.errors import when_it_answers
    from kmnist_search.database.url import check_url
    from kmnist_search.host.signals import StopSignals
    from kmnist_search.run.join import already_reached, join, until_reachable
    from kmnist_search.study.status import status_of
    from kmnist_search.terminal.run_messages import conclude, introduce
    from kmnist_search.worker.stop import Limits

    deadline = None if timeout is None else time.monotonic() + timeout
    options = replace(options, limits=Limits(max_trials=max_trials, waits=waits, deadline=deadline))
    check_url(options.storage_url)
    devices = devices_here(options)
    console = Console()
    with StopSignals() as signals:
        _wait(until_reachable(options, with_study=waits, name=study), signals, deadline)
        with already_reached():
            search = join(study, options.on(devices[0]))
        places = search.places(devices)
        introduce(console, search, places)
        join_again = partial(join, search.study.name)  # the same study, whatever others start meanwhile
        stopped_by = run_workers(console, search, join_again, places, signals=signals)
        progress = when_it_answers()(status_of, search.study).progress
    conclude(console, search, progress, stopped_by, command=typed_command(), options=typed_storage())
    if stopped_by == "signal":
        sys.exit(INTERRUPTED)


def _wait(reasons: Iterator[str], signals: "StopSignals", deadline: float | None) -> None:
    """Wait while there are reasons; print each once. End the process at a signal or the deadline."""
    shown = ""
    for reason in reasons:
        if reason != shown:
            click.echo(f"Waiting: {reason}")
            shown = reason
        if signals.received is not None:
            click.echo("Stopped before there was anything to do.")
            sys.exit(INTERRUPTED)
        if deadline is not None and time.monotonic() > deadline:
            click.echo("Time is up before there was anything to do.")
            sys.exit(0)


def _exit_by_liveness(storage_url: str) -> None:
    """End the process, with exit code 0 if a worker of this host was seen within its lease."""
    from kmnist_search.database.storage import open_storage
    from kmnist_search.host.process import Owner
    from kmnist_search.queue.workers import registered_workers

    host = Owner.this_process().host
    with open_storage(storage_url, create=False).reading() as connection:
        here = [member for member in registered_workers(connection) if member.owner.host == host]
    alive = [member for member in here if not member.is_gone]
    click.echo(f"{len(alive)} of {len(here)} workers of host {host} were seen lately")
    sys.exit(0 if alive else WORK_FAILED)
