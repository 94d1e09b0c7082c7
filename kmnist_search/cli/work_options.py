"""The options that say where and with what a run or a worker works. Knows no command.

Imports that take time wait inside the functions, so that `--help` answers at once.
"""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from kmnist_search.cli.options import (
    Command,
    artifacts_option,
    checkpoints_option,
    data_dir_option,
    device_option,
    duration,
    per_gpu_option,
)


@dataclass(frozen=True, kw_only=True)
class WorkOptions:
    """Where and with what to work.

    Attributes:
        device: "auto", "cpu", "cuda" or "cuda:N".
        gpus: numbers of the GPUs to take in place of `device`; None is no such wish.
        per_gpu: trials to train at a time on a GPU; None is as many as pay.
        workers: processes on a CPU; None is as many as are fastest.
        is_workers_typed: whether that number was typed for this command, and not set for all.
        checkpoint_dir: folder of the checkpoints; None is the storage's own.
        artifacts: folder or bucket of the artifacts; None is the folder beside the database.
        data_dir: folder of the images; None is the command's default.
        database_timeout: seconds that the database may be away.
    """

    device: str
    gpus: Sequence[int] | None
    per_gpu: int | None
    workers: int | None
    is_workers_typed: bool
    checkpoint_dir: Path | None
    artifacts: str | None
    data_dir: Path | None
    database_timeout: float

    def __post_init__(self) -> None:
        if self.gpus is not None and self.device != "auto":
            raise click.UsageError("--gpus and --device name the devices both. Leave one of them out.")

    def devices(self) -> list[str]:
        """Return the devices to work on.

        Raises:
            ConfigError: there are no such GPUs, or not so many workers can be.
        """
        from kmnist_search.run.placement import check_workers, devices_of

        devices = devices_of(self.device, self.gpus)
        check_workers(self.workers, devices, typed=self.is_workers_typed)
        return devices


def work_options(command: Command) -> Command:
    """Give a command the parameter `where`, `WorkOptions`, and the options that they are made of."""

    @functools.wraps(command)
    def gathered(**values: Any) -> Any:
        source = click.get_current_context().get_parameter_source("workers")
        names = ("device", "gpus", "per_gpu", "workers", "checkpoint_dir", "artifacts", "data_dir", "database_timeout")
        chosen = {name: values.pop(name) for name in names}
        where = WorkOptions(**chosen, is_workers_typed=source is ParameterSource.COMMANDLINE)
        return command(where=where, **values)

    options: Any = gathered
    for option in (
        data_dir_option,
        click.option(
            "--database-timeout",
            callback=duration,
            metavar="TIME",
            default="10m",
            show_default=True,
            help="Give up on a database that is away for longer.",
        ),
        artifacts_option,
        checkpoints_option,
        click.option(
            "--workers",
            type=click.IntRange(min=1),
            envvar="KMNIST_SEARCH_WORKERS",
            show_envvar=True,
            help="Processes on a CPU.  [default: as many as are fastest]",
        ),
        click.option(
            "--gpus",
            callback=_gpu_numbers,
            metavar="NUMBERS",
            help="One process on each of these GPUs: 4 for the first four, or 0,2.  [default: all, or else the CPU]",
        ),
        per_gpu_option,
        device_option,
    ):
        options = option(options)
    return options  # type: ignore[no-any-return]


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
