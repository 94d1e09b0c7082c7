"""The options of the commands that train: database, devices and folders.

Imports that take time wait inside the functions, so that `--help` answers at once.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kmnist_search.cli.options import (
    TIME,
    Command,
    artifacts_option,
    checkpoints_option,
    data_dir_option,
    device_option,
    force_option,
    grouped,
    is_typed,
    per_gpu_option,
    storage_option,
    typed_command,
)

if TYPE_CHECKING:
    from rich.console import Console

    from kmnist_search.api.planned import Desk
    from kmnist_search.run.options import RunOptions


def devices_here(options: "RunOptions") -> list[str]:
    """Return the devices of a run. A number of workers that was typed must be possible, one set for all runs need not.

    Raises:
        ConfigError: there are no such GPUs, or the number of workers is not possible.
    """
    from kmnist_search.run.placement import devices_of

    return devices_of(options, insist_on_workers=is_typed("workers"))


def desk_at(console: "Console", devices: Sequence[str]) -> "Desk":
    """Return where a command works on planned trainings: what was typed resumes it."""
    from kmnist_search.api.planned import Desk

    return Desk(console=console, devices=devices, resume=typed_command())


def _run_options(**values: Any) -> "RunOptions":
    from kmnist_search.run.options import RunOptions

    return RunOptions(**values)


def _gpu_numbers(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Sequence[int] | None:
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


#: Gives a command the parameter `retraining`: how a winner is retrained, but for the number of candidates.
retrain_options = grouped(
    "retraining",
    dict,
    click.option("--reruns", type=click.IntRange(min=1), help="Reruns of each candidate.  [default: the study's]"),
    click.option("--rerun-epochs", type=click.IntRange(min=1), help="Epochs of a rerun.  [default: the study's]"),
    click.option("--models", type=click.IntRange(min=1), help="Final models.  [default: the study's]"),
    click.option("--epochs", type=click.IntRange(min=1), help="Epochs of a final model.  [default: the study's]"),
)


#: Gives a command the parameter `retrains`.
retrain_flag = click.option(
    "--retrain", "retrains", is_flag=True, help="Also retrain the winner, as kmnist-search best --retrain does."
)


#: Gives a command the parameter `out`.
result_option = click.option(
    "--out",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Folder of the retraining's result.  [default: STUDY-best]",
)


def check_result_options(*, retrains: bool) -> None:
    """Raise UsageError if an option for the result of a retraining was typed without --retrain."""
    for option in ("out", "force"):
        if not retrains and is_typed(option):
            raise click.UsageError(f"--{option} is for retraining. Add --retrain, or leave it out.")


def result_options(command: Command) -> Command:
    """Give a command the parameters `out` and `force`."""
    return result_option(force_option(command))


#: Gives a command the parameter `options`, `RunOptions`.
work_options = grouped(
    "options",
    _run_options,
    storage_option,
    device_option,
    per_gpu_option,
    click.option(
        "--gpus",
        callback=_gpu_numbers,
        metavar="NUMBERS",
        help="One process on each of these GPUs: 4 for the first four, or 0,2.  [default: all, or else the CPU]",
    ),
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        envvar="KMNIST_SEARCH_WORKERS",
        show_envvar=True,
        help="Processes on a CPU.  [default: as many as are fastest]",
    ),
    checkpoints_option,
    artifacts_option,
    click.option(
        "--database-timeout",
        type=TIME,
        default="10m",
        show_default=True,
        help="Give up on a database that is away for longer.",
    ),
    data_dir_option,
)
