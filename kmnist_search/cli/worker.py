"""The command `worker`: joins a study and trains its trials.

Imports that take time wait inside the command, so that `--help` answers at once.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kmnist_search.cli.options import (
    INTERRUPTED,
    TIME,
    WORK_FAILED,
    stored_study,
    study_argument,
    typed_command,
    typed_storage,
)
from kmnist_search.cli.work_options import (
    check_result_options,
    desk_at,
    devices_here,
    result_options,
    retrain_flag,
    work_options,
)

if TYPE_CHECKING:
    from rich.console import Console

    from kmnist_search.host.signals import StopSignals
    from kmnist_search.run.options import RunOptions
    from kmnist_search.run.search import Search
    from kmnist_search.worker.stop import StoppedBy, Waits


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
@retrain_flag
@result_options
def worker(
    study: str | None,
    waits: bool,
    max_trials: int | None,
    timeout: float | None,
    options: "RunOptions",
    is_alive: bool,
    retrains: bool,
    out: Path | None,
    force: bool,
) -> None:
    """Join a study and train its trials until the queue is empty.

    STUDY is its name in the storage; without it, the only one or the one last worked on. The study has its own
    settings: a worker needs only the images. One process works on each GPU. If the winner is being retrained, a worker
    helps with that, too.
    """
    if is_alive:
        _exit_by_liveness(options.storage_url)
    check_result_options(retrains=retrains)
    if waits and retrains:
        raise click.UsageError("--wait never comes to an end, so --retrain would never begin. Leave one of them out.")

    from rich.console import Console

    from kmnist_search.api.planned import check_result_folder, retrain_as_planned
    from kmnist_search.database.errors import when_it_answers
    from kmnist_search.database.url import check_url
    from kmnist_search.host.signals import StopSignals
    from kmnist_search.run.join import until_reachable
    from kmnist_search.study.status import status_of
    from kmnist_search.terminal.run_messages import conclude
    from kmnist_search.worker.stop import Limits

    deadline = None if timeout is None else time.monotonic() + timeout
    stays: Waits = "forever" if waits else "for others" if retrains else "never"
    options = replace(options, limits=Limits(max_trials=max_trials, waits=stays, deadline=deadline))
    check_url(options.storage_url)
    console = Console()
    with StopSignals() as signals:
        _wait(until_reachable(options, with_study=waits, name=study), signals, deadline)
        if retrains and study is not None and stored_study(options.storage_url, study).counts().unfinished:
            check_result_folder(study, out, force=force)
        search, last, stopped_by = _work(console, study, options, signals)
        progress = when_it_answers()(status_of, last.study).progress
    resume = typed_command()
    if progress.counts.unfinished and when_it_answers()(last.study.halt) is not None:  # a worker would wait, or end
        resume = f"kmnist-search resume {search.study.name}{typed_storage()}, and then {resume}"
    conclude(console, last, progress, stopped_by, command=resume, options=typed_storage())
    if signals.received is not None:
        sys.exit(INTERRUPTED)
    if retrains and stopped_by == "budget":
        desk = desk_at(console, devices_here(options))
        retrain_as_planned(desk, search.study, options, out, force=force)


def _work(
    console: "Console", name: str | None, options: "RunOptions", signals: "StopSignals"
) -> "tuple[Search, Search, StoppedBy]":
    """Work on a study and on the retraining of its winner, until nothing is left.

    Returns:
        The study, what was worked on last, and why that ended.
    """
    from kmnist_search.api.work import run_workers
    from kmnist_search.errors import ConfigError
    from kmnist_search.retrain.retraining import enlist, is_waiting, rejoin
    from kmnist_search.run.join import already_reached, join
    from kmnist_search.terminal.run_messages import introduce

    devices = devices_here(options)
    on_device = options.on(devices[0])
    with already_reached():
        search = enlist(name, on_device)
    name, can_help = search.study.name, True  # the same study, whatever others start meanwhile
    while True:
        helps = can_help and not search.counts().waiting and is_waiting(search.study)
        try:
            there = rejoin(name, on_device) if helps else search
        except ConfigError as error:  # its models would not be found, for example
            click.echo(f"This worker leaves the retraining to others: {error}")
            can_help, search = False, join(name, on_device)
            continue
        join_again = partial(rejoin if helps else enlist if can_help else join, name)
        places = there.places(devices)
        introduce(console, there, places)
        stopped_by = run_workers(console, there, join_again, places, signals=signals)
        is_stopped = stopped_by not in ("budget", "queue", "elsewhere")
        stays = (can_help and is_waiting(search.study)) or (helps and options.limits.waits == "forever")
        if is_stopped or not stays:
            return search, there, stopped_by


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
