"""The command `run`: starts or resumes a search.

Imports that take time wait inside the command, so that `--help` answers at once.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kmnist_search.cli.completion import study_names
from kmnist_search.cli.options import (
    INTERRUPTED,
    TIME,
    json_option,
    print_json,
    typed_command,
    typed_storage,
)
from kmnist_search.cli.study_options import AskedStudy, study_options
from kmnist_search.cli.work_options import (
    check_result_options,
    desk_at,
    devices_here,
    result_options,
    retrain_flag,
    work_options,
)
from kmnist_search.host.forks import import_ahead

if TYPE_CHECKING:
    from kmnist_search.run.options import RunOptions


@click.command(epilog="Example: kmnist-search run kmnist-cpu --trials 20 --timeout 1h")
@study_options
@click.option(
    "--from",
    "earlier",
    metavar="STUDY",
    shell_complete=study_names,
    help="Begin a new study with the five best configurations of another one in the storage.",
)
@click.option("--timeout", type=TIME, help="Stop after this time, such as 90m or 2h.")
@click.option("--target", type=float, help="Stop once a complete trial is as good as this, such as 0.98.")
@click.option(
    "--patience",
    type=click.IntRange(min=1),
    help="Start no more trials after so many finished ones without a new best; paused ones do not count.",
)
@work_options
@retrain_flag
@result_options
@json_option
def run(
    asked: AskedStudy,
    earlier: str | None,
    timeout: float | None,
    target: float | None,
    patience: int | None,
    options: "RunOptions",
    retrains: bool,
    out: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Run a search until all its trials are finished, or resume it.

    STUDY is a built-in study (kmnist, kmnist-cpu, kmnist-hour, kmnist-wide, quickstart), FILE the path of a study
    file. The same command again resumes the study. Any number of processes may work on one study at the same time.
    """
    check_result_options(retrains=retrains)
    file = asked.file()
    import_ahead(options.device, options.workers)

    from rich.console import Console

    from kmnist_search.api.planned import check_result_folder, retrain_as_planned
    from kmnist_search.api.work import work_on
    from kmnist_search.run.submission import prepare
    from kmnist_search.run.warm_start import warm_started
    from kmnist_search.study.summary import status_summary
    from kmnist_search.terminal.run_messages import announce_warm_start, conclude
    from kmnist_search.worker.stop import Limits

    devices = devices_here(options)
    limits = Limits(target=target, patience=patience, waits="for others" if retrains else "never")
    options = replace(options, trials=asked.budget(options.storage_url), limits=limits)
    taken = 0
    if earlier is not None:
        file, taken = warm_started(file, options.storage_url, earlier)
    search = prepare(file, options.on(devices[0]))
    if retrains and search.trials_left():
        check_result_folder(search.study.name, out, force=force)
    console = Console(stderr=as_json)
    if earlier is not None:
        announce_warm_start(console, earlier, taken)
    ended = work_on(console, search, devices, timeout=timeout, options=typed_storage())
    status, stopped_by = ended.status, ended.stopped_by
    texts = {"command": typed_command(), "options": typed_storage()}
    conclude(console, ended.search, status.progress, stopped_by, **texts, retrains=retrains)
    if as_json:
        print_json({**status_summary(status), "stopped_by": stopped_by})
    if ended.interrupted or stopped_by == "command":
        sys.exit(INTERRUPTED)
    if retrains and stopped_by in ("budget", "target", "patience"):
        limits = ended.search.options.limits  # with the deadline
        retrain_as_planned(desk_at(console, devices), search.study, replace(options, limits=limits), out, force=force)
