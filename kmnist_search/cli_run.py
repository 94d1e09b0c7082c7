"""The command that begins a search and works on it: parse, call one function, print.

Imports that take time wait inside the command, so that `--help` answers at once.
"""

import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click
from click.core import ParameterSource

from kmnist_search.cli_options import (
    INTERRUPTED,
    all_overrides,
    duration,
    json_option,
    print_json,
    storage_option,
    study_options,
    threads_wait_passively,
    without_passwords,
    work_options,
)


@click.command(epilog="Example: kmnist-search run kmnist-cpu --trials 20 --timeout 1h")
@click.argument("study", default="kmnist")
@study_options
@storage_option
@click.option("--timeout", callback=duration, metavar="TIME", help="Stop after this time, such as 90m or 2h.")
@click.option("--target", type=float, help="Stop once a complete trial is as good as this, such as 0.98.")
@work_options
@json_option
@click.pass_context
def run(
    context: click.Context,
    study: str,
    trials: int | None,
    storage_url: str,
    name: str | None,
    timeout: float | None,
    target: float | None,
    device: str,
    per_gpu: int | None,
    gpus: Sequence[int] | None,
    workers: int | None,
    checkpoint_dir: Path | None,
    database_timeout: float,
    seed: int | None,
    epochs: int | None,
    overrides: tuple[str, ...],
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Run a search until its study has as many finished trials as asked for.

    STUDY is a built-in study (kmnist, kmnist-cpu, quickstart) or the path of a study file. Given again, the same
    command goes on where the study stands; any number of them may work on one study at a time.
    """
    if gpus is not None and device != "auto":
        raise click.UsageError("--gpus and --device name the devices both. Leave one of them out.")
    threads_wait_passively()

    from rich.console import Console

    from kmnist_search import shown_work, terminal
    from kmnist_search.builtin import find_study_file
    from kmnist_search.data.files import default_data_dir
    from kmnist_search.database_errors import when_it_answers
    from kmnist_search.placement import check_workers, devices_of, places
    from kmnist_search.progress import status_of
    from kmnist_search.search import prepare
    from kmnist_search.signals import StopSignals
    from kmnist_search.summary import status_summary

    devices = devices_of(device, gpus)
    check_workers(workers, devices, typed=context.get_parameter_source("workers") is ParameterSource.COMMANDLINE)
    prepare_on = partial(
        prepare,
        find_study_file(study),
        overrides=all_overrides(overrides, name=name, seed=seed, epochs=epochs),
        trials=trials,
        target=target,
        storage_url=storage_url,
        data_dir=data_dir or default_data_dir(),
        checkpoint_dir=checkpoint_dir,
        database_timeout=database_timeout,
        per_gpu=per_gpu,
    )
    search = prepare_on(device=devices[0])
    images, trials_left = len(search.data.train_images), search.trials_left()
    working = places(devices, search.file.middle(), images=images, workers=workers, trials_left=trials_left)
    console = Console(stderr=as_json)
    terminal.announce(console, search, working)
    with StopSignals() as signals:
        stopped_by = shown_work.work(console, search, prepare_on, working, signals=signals, seconds=timeout)
        status = when_it_answers()(status_of, search.study)
    command = shlex.join(["kmnist-search", *without_passwords(sys.argv[1:])])
    terminal.conclude(console, search, status.progress, stopped_by, command=command)
    if as_json:
        print_json({**status_summary(status), "stopped_by": stopped_by})
    if stopped_by == "signal":
        sys.exit(INTERRUPTED)
