"""The command that begins a search and works on it: parse, call one function, print.

Imports that take time wait inside the command, so that `--help` answers at once.
"""

import sys
from functools import partial

import click

from kmnist_search.cli.options import (
    INTERRUPTED,
    duration,
    json_option,
    print_json,
    storage_option,
    threads_wait_passively,
    typed_command,
)
from kmnist_search.cli.study_options import AskedStudy, study_options
from kmnist_search.cli.work_options import WorkOptions, work_options


@click.command(epilog="Example: kmnist-search run kmnist-cpu --trials 20 --timeout 1h")
@study_options
@storage_option
@click.option("--timeout", callback=duration, metavar="TIME", help="Stop after this time, such as 90m or 2h.")
@click.option("--target", type=float, help="Stop once a complete trial is as good as this, such as 0.98.")
@work_options
@json_option
def run(
    asked: AskedStudy,
    storage_url: str,
    timeout: float | None,
    target: float | None,
    where: WorkOptions,
    as_json: bool,
) -> None:
    """Run a search until its study has as many finished trials as asked for.

    STUDY is a built-in study (kmnist, kmnist-cpu, quickstart) or the path of a study file. Given again, the same
    command goes on where the study stands; any number of them may work on one study at a time.
    """
    threads_wait_passively()

    from rich.console import Console

    from kmnist_search.cli import run_workers as shown_work
    from kmnist_search.data.files import default_data_dir
    from kmnist_search.database.errors import when_it_answers
    from kmnist_search.host.signals import StopSignals
    from kmnist_search.run.placement import places
    from kmnist_search.run.search import prepare
    from kmnist_search.study.status import status_of
    from kmnist_search.study.summary import status_summary
    from kmnist_search.terminal import run as terminal

    devices = where.devices()
    prepare_on = partial(
        prepare,
        asked.path(),
        overrides=asked.changes(),
        trials=asked.trials,
        target=target,
        storage_url=storage_url,
        data_dir=where.data_dir or default_data_dir(),
        checkpoint_dir=where.checkpoint_dir,
        artifacts=where.artifacts,
        database_timeout=where.database_timeout,
        per_gpu=where.per_gpu,
    )
    search = prepare_on(device=devices[0])
    images, trials_left = search.data.train_images, search.trials_left()
    working = places(devices, search.file.middle(), images=images, workers=where.workers, trials_left=trials_left)
    console = Console(stderr=as_json)
    terminal.announce(console, search, working)
    with StopSignals() as signals:
        stopped_by = shown_work.work(console, search, prepare_on, working, signals=signals, seconds=timeout)
        status = when_it_answers()(status_of, search.study)
    terminal.conclude(console, search, status.progress, stopped_by, command=typed_command())
    if as_json:
        print_json({**status_summary(status), "stopped_by": stopped_by})
    if stopped_by == "signal":
        sys.exit(INTERRUPTED)
