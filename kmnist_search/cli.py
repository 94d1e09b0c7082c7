"""The command line: parse, call one function, print. Nothing imports this.

Imports that take time wait inside the commands, so that `--help` answers at once.
"""

import json
import re
import shlex
import sys
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import click
from click.core import ParameterSource

from kmnist_search.cli_bench import bench
from kmnist_search.cli_best import best
from kmnist_search.cli_model import export, predict
from kmnist_search.cli_options import (
    INTERRUPTED,
    Commands,
    checkpoints_option,
    data_dir_option,
    device_option,
    json_option,
    per_gpu_option,
    print_json,
    storage_option,
    threads_wait_passively,
)
from kmnist_search.cli_report import report
from kmnist_search.cli_studies import studies


def duration(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    """Return the seconds of a time such as 45s, 90m, 2h, 1h30m or 45."""
    if value is None:
        return None
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", value.strip())
    if not match or not any(match.groups()):
        raise click.BadParameter(f"{value!r} is no time. Write it as 45s, 90m, 2h or 1h30m.")
    hours, minutes, seconds = (int(group or 0) for group in match.groups())
    total = 3600.0 * hours + 60 * minutes + seconds
    if not total:
        raise click.BadParameter(f"{value!r} leaves no time to run.")
    return total


def gpu_numbers(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Sequence[int] | None:
    """Return the numbers of the GPUs meant by 0,2 (these two) or 4 (the first four)."""
    if value is None:
        return None
    if not re.fullmatch(r"\d+(,\d+)*", value.strip()):
        raise click.BadParameter(f"{value!r} names no GPUs. Write 4 for the first four, or 0,2 for these two.")
    numbers = [int(number) for number in value.split(",")]
    if len(set(numbers)) < len(numbers):
        raise click.BadParameter(f"{value!r} names a GPU twice.")
    if numbers == [0]:
        raise click.BadParameter("0 is no number of GPUs. The GPU numbered 0, and only that, is --device cuda:0.")
    return numbers if len(numbers) > 1 else range(numbers[0])


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: kmnist-search run quickstart --trials 20",
)
@click.version_option(package_name="kmnist-search")
def main() -> None:
    """Search the best patch-MLP for KMNIST, and keep every trial."""


@main.command(epilog="Example: kmnist-search run kmnist-cpu --trials 20 --timeout 1h")
@click.argument("study", default="kmnist")
@click.option("--trials", type=click.IntRange(min=1), help="Trials the study shall end with.  [default: the study's]")
@storage_option
@click.option("--name", help="Name of the study in the storage.  [default: the study file's]")
@click.option("--timeout", callback=duration, metavar="TIME", help="Stop after this time, such as 90m or 2h.")
@click.option("--target", type=float, help="Stop once a complete trial is as good as this, such as 0.98.")
@device_option
@per_gpu_option
@click.option(
    "--gpus",
    callback=gpu_numbers,
    metavar="NUMBERS",
    help="One process on each of these GPUs: 4 for the first four, or 0,2.  [default: all, or else the CPU]",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    envvar="KMNIST_SEARCH_WORKERS",
    show_envvar=True,
    help="Processes on a CPU.  [default: as many as are fastest]",
)
@checkpoints_option
@click.option(
    "--database-timeout",
    callback=duration,
    metavar="TIME",
    default="10m",
    show_default=True,
    help="Give up on a database that is away for longer.",
)
@click.option("--seed", type=click.IntRange(min=0), help="Seed of proposals and trainings.  [default: the study's]")
@click.option("--epochs", type=click.IntRange(min=1), help="Epochs of a trial.  [default: the study's]")
@click.option("--set", "overrides", multiple=True, metavar="TABLE.KEY=VALUE", help="Change the study file's value.")
@data_dir_option
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

    from kmnist_search import terminal
    from kmnist_search.builtin import find_study_file
    from kmnist_search.data.files import default_data_dir
    from kmnist_search.database_errors import when_it_answers
    from kmnist_search.fleet import Fleet
    from kmnist_search.placement import check_workers, devices_of, places
    from kmnist_search.progress import status_of
    from kmnist_search.search import prepare
    from kmnist_search.signals import StopSignals
    from kmnist_search.summary import status_summary

    options = {"study.name": json.dumps(name) if name is not None else None, "study.seed": seed, "train.epochs": epochs}
    devices = devices_of(device, gpus)
    check_workers(workers, devices, typed=context.get_parameter_source("workers") is ParameterSource.COMMANDLINE)
    prepare_on = partial(
        prepare,
        find_study_file(study),
        overrides=[*overrides, *(f"{key}={value}" for key, value in options.items() if value is not None)],
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
        if len(working) == 1:
            worker, events = search.work(signals, seconds=timeout, cores=working[0].cores)
            with closing(events):  # whatever ends this, the courier ends in order
                terminal.follow(console, search, partial(search.seen_by, worker), events)
            stopped_by = worker.stopped_by
        else:
            with Fleet(search, prepare_on, working, signals=signals, seconds=timeout) as fleet:
                terminal.follow(console, search, fleet.progress, fleet.work())
            stopped_by = fleet.stopped_by
        status = when_it_answers()(status_of, search.study)
    command = shlex.join(["kmnist-search", *_without_passwords(sys.argv[1:])])
    terminal.conclude(console, status.progress, search.budget, stopped_by, command=command)
    if as_json:
        print_json({**status_summary(status), "stopped_by": stopped_by})
    if stopped_by == "signal":
        sys.exit(INTERRUPTED)


@main.command(epilog="Example: kmnist-search status quickstart --json")
@click.argument("study", required=False)
@storage_option
@json_option
def status(study: str | None, storage_url: str, as_json: bool) -> None:
    """Show how far a study has come.

    STUDY is its name in the storage; without it, the only one or the one last worked on.
    """
    from rich.console import Console

    from kmnist_search.errors import ReadOnlyError
    from kmnist_search.progress import status_of
    from kmnist_search.storage import open_storage
    from kmnist_search.study import find_study
    from kmnist_search.summary import status_summary
    from kmnist_search.views import status_view

    found = find_study(open_storage(storage_url, create=False), study)
    try:
        recovered = found.recover()
    except ReadOnlyError as error:
        recovered = []
        click.echo(f"A trial whose worker is gone could not be put back among the waiting: {error}", err=True)
    status = status_of(found)
    if as_json:
        print_json(status_summary(status))
        return
    console = Console()
    console.print(status_view(status))
    if recovered:
        numbers = ", ".join(str(number) for number in recovered)
        console.print(f"Put back among the waiting, because its worker is gone: trial {numbers}", highlight=False)


main.add_command(best)
main.add_command(report)
main.add_command(studies)
main.add_command(predict)
main.add_command(export)
main.add_command(bench)


@main.command(epilog="Example: kmnist-search dashboard --port 8080")
@storage_option
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port; 0 takes a free one."
)
def dashboard(storage_url: str, port: int) -> None:
    """Serve optuna-dashboard on this machine until Ctrl-C."""
    from kmnist_search.dashboard import HOST, server
    from kmnist_search.storage import open_storage

    storage = open_storage(storage_url, create=False)
    serving = server(storage, port)
    click.echo(f"Dashboard of {storage.shown_url}: http://{HOST}:{serving.effective_port}/dashboard  (Ctrl-C ends it)")
    serving.run()


def _without_passwords(arguments: list[str]) -> list[str]:
    """Return a command line as it may be shown."""
    from kmnist_search.storage_url import without_password

    shown = []
    for argument in arguments:
        option, equals, value = argument.rpartition("=") if argument.startswith("--storage=") else ("", "", argument)
        shown.append(f"{option}{equals}{without_password(value)}" if "://" in value else argument)
    return shown


if __name__ == "__main__":
    main()
