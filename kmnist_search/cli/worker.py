"""The command that joins a study as a worker: parse, call one function, print.

Imports that take time wait inside the command, so that `--help` answers at once.
"""

import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import click

from kmnist_search.cli.options import (
    INTERRUPTED,
    WORK_FAILED,
    duration,
    storage_option,
    threads_wait_passively,
    typed_command,
)
from kmnist_search.cli.work_options import WorkOptions, work_options

if TYPE_CHECKING:
    from kmnist_search.host.signals import StopSignals


@click.command(epilog="Example: kmnist-search worker kmnist --storage postgresql://me@server/kmnist --max-time 55m")
@click.argument("study", required=False)
@storage_option
@click.option(
    "--wait", "waits", is_flag=True, help="Stay for more: for trials that others add or lose, and for the study itself."
)
@click.option("--max-trials", type=click.IntRange(min=1), help="Leave after so many trials of each process.")
@click.option(
    "--max-time",
    callback=duration,
    metavar="TIME",
    help="Leave after this time, such as 55m: before a limit that kills.",
)
@work_options
@click.option(
    "--is-alive", is_flag=True, help="Do no work: exit with 0 if a worker of this host was seen lately, else with 1."
)
def worker(
    study: str | None,
    storage_url: str,
    waits: bool,
    max_trials: int | None,
    max_time: float | None,
    where: WorkOptions,
    is_alive: bool,
) -> None:
    """Join a study that others have made, and work on its queue until it is empty.

    STUDY is its name in the storage; without it, the only one or the one last worked on. The study carries its own
    settings: nothing else is needed here but the images. One process works on each GPU.
    """
    if is_alive:
        _tell_whether_alive(storage_url)
    threads_wait_passively()

    from rich.console import Console

    from kmnist_search.cli import run_workers as shown_work
    from kmnist_search.database.errors import when_it_answers
    from kmnist_search.database.url import check_url
    from kmnist_search.host.signals import StopSignals
    from kmnist_search.run.join import already_reached, join, until_reachable, until_there
    from kmnist_search.run.placement import places
    from kmnist_search.study.status import status_of
    from kmnist_search.terminal import run as terminal

    deadline = None if max_time is None else time.monotonic() + max_time
    check_url(storage_url)
    devices = where.devices()
    join_on = partial(
        join,
        storage_url=storage_url,
        data_dir=where.data_dir,
        checkpoint_dir=where.checkpoint_dir,
        artifacts=where.artifacts,
        database_timeout=where.database_timeout,
        per_gpu=where.per_gpu,
        max_trials=max_trials,
        waits=waits,
    )
    console = Console()
    with StopSignals() as signals:
        reasons = partial(until_there, name=study) if waits else until_reachable
        _wait(reasons(storage_url, database_timeout=where.database_timeout), signals, deadline)
        with already_reached():
            search = join_on(study, device=devices[0])
        working = places(
            devices,
            search.file.middle(),
            images=search.data.train_images,
            workers=where.workers,
            trials_left=sys.maxsize if waits else search.trials_left(),
        )
        terminal.introduce(console, search, working)
        prepare_on = partial(join_on, search.study.name)  # the same, whatever others begin meanwhile
        seconds = None if deadline is None else max(deadline - time.monotonic(), 0.0)
        stopped_by = shown_work.work(console, search, prepare_on, working, signals=signals, seconds=seconds)
        progress = when_it_answers()(status_of, search.study).progress
    terminal.conclude(console, search, progress, stopped_by, command=typed_command())
    if stopped_by == "signal":
        sys.exit(INTERRUPTED)


def _wait(reasons: Iterator[str], signals: "StopSignals", deadline: float | None) -> None:
    """Wait as long as there are reasons, say each once, and end the process if it is to stop before."""
    told = ""
    for reason in reasons:
        if reason != told:
            click.echo(f"Waiting: {reason}")
            told = reason
        if signals.received is not None:
            click.echo("Stopped before there was anything to do.")
            sys.exit(INTERRUPTED)
        if deadline is not None and time.monotonic() > deadline:
            click.echo("Time is up before there was anything to do.")
            sys.exit(0)


def _tell_whether_alive(storage_url: str) -> None:
    """End the process: with 0 if a worker of this host was seen within its lease."""
    from kmnist_search.database.storage import open_storage
    from kmnist_search.host.process import Owner
    from kmnist_search.queue.workers import members

    host = Owner.this_process().host
    with open_storage(storage_url, create=False).reading() as connection:
        here = [member for member in members(connection) if member.owner.host == host]
    alive = [member for member in here if not member.is_gone]
    click.echo(f"{len(alive)} of {len(here)} workers of host {host} were seen lately")
    sys.exit(0 if alive else WORK_FAILED)
