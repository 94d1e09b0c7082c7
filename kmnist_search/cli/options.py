"""The options, the JSON output and the exit codes that commands share.

Imports that take time wait inside the functions, so that `--help` answers at once.
"""

import json
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from kmnist_search.errors import KmnistSearchError

WORK_FAILED = 1
INTERRUPTED = 130
DEFAULT_STORAGE = "sqlite:///kmnist-search.db"

Command = TypeVar("Command", bound=Callable[..., Any])


class _Time(click.ParamType[float]):
    """A time above zero, in seconds: 45, 45s, 90m, 2h or 1h30m."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", str(value).strip())
        if not match or not any(match.groups()):
            self.fail(f"{value!r} is not a time. Write 45 or 45s (seconds), 90m, 2h or 1h30m.", param, ctx)
        hours, minutes, seconds = (int(group or 0) for group in match.groups())
        total = 3600.0 * hours + 60 * minutes + seconds
        if not total:
            self.fail(f"{value!r} is no time at all. Write 45 or 45s (seconds), 90m, 2h or 1h30m.", param, ctx)
        return total


#: The type of every option that takes a time.
TIME = _Time()


class Commands(click.Group):
    """Turns this package's errors into messages and exit codes: 2 the user's input, 1 the work, 130 interrupted."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KmnistSearchError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("Interrupted. The next run takes up what was left.", err=True)
            ctx.exit(INTERRUPTED)
        except (click.exceptions.Exit, click.Abort, click.ClickException):
            raise
        except Exception as error:
            from kmnist_search.database.errors import DATABASE_ERRORS, reason_of

            if not isinstance(error, DATABASE_ERRORS):
                raise
            click.echo(f"Error: the database failed: {reason_of(error)}.", err=True)
            if ctx.invoked_subcommand == "run":
                click.echo("What it holds is kept; the next run takes up the trial that was at work.", err=True)
            ctx.exit(WORK_FAILED)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order they are used, not of the alphabet


def storage_option(command: Command) -> Command:
    return click.option(
        "--storage",
        "storage_url",
        metavar="URL",
        default=DEFAULT_STORAGE,
        envvar="KMNIST_SEARCH_STORAGE",
        show_default=True,
        show_envvar=True,
        callback=_or_as_given_before,
        help="Database of the studies.",
    )(command)


def _or_as_given_before(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """Return what was typed with a subcommand, or else before it, or else the environment's or the default."""
    group, name = ctx.parent, str(param.name)
    typed = ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
    if typed or group is None or group.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
        return value
    return group.params[name]


def json_option(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")(command)


def device_option(command: Command) -> Command:
    return click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")(command)


def per_gpu_option(command: Command) -> Command:
    return click.option(
        "--per-gpu",
        metavar="auto|N",
        default="auto",
        callback=_auto_or_number,
        envvar="KMNIST_SEARCH_PER_GPU",
        show_default=True,
        show_envvar=True,
        help="Trials to train at a time on a GPU; auto is as many as pay.",
    )(command)


def _auto_or_number(_ctx: click.Context, _param: click.Parameter, value: str) -> int | None:
    """Return the number, or None for "auto"."""
    if value == "auto":
        return None
    if not value.isdecimal() or int(value) < 1:
        raise click.BadParameter(f"{value!r} is neither auto nor a number of trials.")
    return int(value)


def typed_command() -> str:
    """Return the command line of this process as it may be shown, without passwords."""
    from kmnist_search.database.url import without_password

    shown = ["kmnist-search"]
    for argument in sys.argv[1:]:
        option, equals, value = argument.rpartition("=") if argument.startswith("--storage=") else ("", "", argument)
        shown.append(f"{option}{equals}{without_password(value)}" if "://" in value else argument)
    return shlex.join(shown)


def checkpoints_option(command: Command) -> Command:
    return click.option(
        "--checkpoints",
        "checkpoint_dir",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="KMNIST_SEARCH_CHECKPOINTS",
        show_envvar=True,
        help="Folder of the checkpoints; shared, others can go on.  [default: beside a SQLite file, else here]",
    )(command)


def artifacts_option(command: Command) -> Command:
    return click.option(
        "--artifacts",
        metavar="FOLDER|URL",
        envvar="KMNIST_SEARCH_ARTIFACTS",
        show_envvar=True,
        help="Folder or bucket (s3://, gs://) of the best trials' pictures.  [default: beside the checkpoints]",
    )(command)


def data_dir_option(command: Command) -> Command:
    return click.option(
        "--data-dir",
        type=click.Path(path_type=Path, file_okay=False, exists=True),
        envvar="KMNIST_SEARCH_DATA",
        show_envvar=True,
        help="Folder of the images.  [default: the user's cache folder]",
    )(command)


def threads_wait_passively() -> None:
    """Tell OpenMP, which reads it when torch is imported, not to spin while it waits.

    Threads that spin steal the cores from each other: two runs on two cores made 15 steps/s each instead of 53
    (tests/benchmarks/LOG.md).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))
