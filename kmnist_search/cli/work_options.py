"""The options of the commands that train: database, devices and folders.

Imports that take time wait inside the functions, so that `--help` answers at once.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from kmnist_search.cli.options import (
    TIME,
    artifacts_option,
    checkpoints_option,
    data_dir_option,
    device_option,
    grouped,
    is_typed,
    per_gpu_option,
    storage_option,
)

if TYPE_CHECKING:
    from kmnist_search.run.options import RunOptions


def devices_here(options: "RunOptions") -> list[str]:
    """Return the devices of a run. A number of workers that was typed must be possible, one set for all runs need not.

    Raises:
        ConfigError: there are no such GPUs, or the number of workers is not possible.
    """
    from kmnist_search.run.placement import devices_of

    return devices_of(options, insist_on_workers=is_typed("workers"))


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
