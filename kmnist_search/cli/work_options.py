"""The options of the commands that train: database, devices and folders.

Imports that take time wait inside the functions, so that `--help` answers at once.
"""

import logging
import re
from collections.abc import Sequence
from functools import partial
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


def _run_options(
    *, log_file: Path | None, webhook: str | None, tensorboard: Path | None, **values: Any
) -> "RunOptions":
    """Return the options of a run, whose messages, curves and log can be written; the log is open.

    Raises:
        ConfigError: one of them cannot be written, or options contradict each other.
    """
    from kmnist_search.run.options import RunOptions

    if log_file is not None:
        _log_to(log_file)
    if webhook is not None:
        from kmnist_search.outlets.webhook import check_webhook

        check_webhook(webhook)
    if tensorboard is not None:
        from kmnist_search.outlets.tensorboard import check_tensorboard

        check_tensorboard(tensorboard)
    return RunOptions(webhook=webhook, tensorboard=tensorboard, **values)


def _log_to(path: Path) -> None:
    """Let the log of this command also go to a file; earlier lines in it stay."""
    try:
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise click.UsageError(f"--log-file {path} cannot be written: {error.strerror}.") from None
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", datefmt="%Y-%m-%d %H:%M:%S"))
    log = logging.getLogger("kmnist_search")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    # Of the program, not of the command: an error that ends the command is logged after it.
    program = click.get_current_context().find_root()
    program.call_on_close(handler.close)
    program.call_on_close(partial(log.removeHandler, handler))


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
    click.option(
        "--notify",
        "webhook",
        metavar="URL",
        envvar="KMNIST_SEARCH_NOTIFY",
        show_envvar=True,
        help="Webhook, such as Slack's, that gets a message on a new best, a failed trial, a database that is away and "
        "the end.",
    ),
    click.option(
        "--tensorboard",
        metavar="FOLDER",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="KMNIST_SEARCH_TENSORBOARD",
        show_envvar=True,
        help="Folder for the curves of each trial, as TensorBoard reads them.",
    ),
    click.option(
        "--log-file",
        metavar="FILE",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar="KMNIST_SEARCH_LOG_FILE",
        show_envvar=True,
        help="File to which every line is also written, with its time.",
    ),
)
