"""The options, the JSON output and the exit codes that commands share.

Imports that take time wait inside the functions, so that `--help` answers at once.
"""

import json
import logging
import re
import shlex
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from kmnist_search.cli.completion import study_names
from kmnist_search.errors import KmnistSearchError, StoppedError
from kmnist_search.host.runtimes import set_up_runtimes

if TYPE_CHECKING:
    from kmnist_search.study.study import SearchStudy

#: Where a context keeps what typed values meant.
RESOLVED = "kmnist_search.resolved"
WORK_FAILED = 1
INTERRUPTED = 130

Command = TypeVar("Command", bound=Callable[..., Any])


class _Time(click.ParamType[int]):
    """A time above zero, in seconds: 45, 45s, 90m, 2h or 1h30m."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", str(value).strip())
        if not match or not any(match.groups()):
            self.fail(f"{value!r} is not a time. Write 45 or 45s (seconds), 90m, 2h or 1h30m.", param, ctx)
        hours, minutes, seconds = (int(group or 0) for group in match.groups())
        total = 3600 * hours + 60 * minutes + seconds
        if not total:
            self.fail(f"{value!r} is no time at all. Write 45 or 45s (seconds), 90m, 2h or 1h30m.", param, ctx)
        return total


#: The type of every option that takes a time.
TIME = _Time()


class Commands(click.Group):
    """Turns this package's errors into messages and exit codes: 2 the user's input, 1 the work, 130 interrupted."""

    def invoke(self, ctx: click.Context) -> Any:
        set_up_runtimes()
        try:
            return super().invoke(ctx)
        except StoppedError as error:  # which was shown where the work is shown
            ctx.exit(error.exit_code)
        except KmnistSearchError as error:
            click.echo(f"Error: {error}", err=True)
            logging.getLogger("kmnist_search").info("Error: %s", error)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("Interrupted. To resume, run the same command again.", err=True)
            ctx.exit(INTERRUPTED)
        except (click.exceptions.Exit, click.Abort, click.ClickException):
            raise
        except Exception as error:
            from kmnist_search.database.errors import DATABASE_ERRORS, reason_of

            if not isinstance(error, DATABASE_ERRORS):
                raise
            click.echo(f"Error: the database failed: {reason_of(error)}.", err=True)
            if ctx.invoked_subcommand == "run":
                click.echo("Everything in it is kept. The same command resumes the trial that was running.", err=True)
            ctx.exit(WORK_FAILED)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order of use


def grouped(parameter: str, make: Callable[..., Any], *options: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Return a decorator that gives a command the options, and a single parameter for them: `make` of their values."""

    def decorate(command: Command) -> Command:
        @wraps(command)
        def gathered(**values: Any) -> Any:
            own = {name: values.pop(name) for name in names}
            return command(**{parameter: make(**own)}, **values)

        num_others = len(getattr(command, "__click_params__", ()))
        for option in reversed(options):
            option(gathered)
        names = [param.name for param in gathered.__click_params__[num_others:]]  # type: ignore[attr-defined]
        return gathered  # type: ignore[return-value]

    return decorate


def is_typed(option: str) -> bool:
    """Return whether an option of this command was typed, neither a default nor from the environment."""
    return click.get_current_context().get_parameter_source(option) is ParameterSource.COMMANDLINE


def is_given(option: str) -> bool:
    """Return whether an option of this command has a value that is not its default."""
    return click.get_current_context().get_parameter_source(option) is not ParameterSource.DEFAULT


def _or_as_given_before(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """Return the value typed after a subcommand, else before it, else that of the environment, else the default."""
    group, name = ctx.parent, str(param.name)
    if is_typed(name) or group is None or group.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
        return value
    return group.params[name]


def _auto_or_number(_ctx: click.Context, _param: click.Parameter, value: str) -> int | None:
    """Return the number, or None for "auto"."""
    if value == "auto":
        return None
    if not value.isdecimal() or int(value) < 1:
        raise click.BadParameter(f"{value!r} is neither auto nor a number of trials.")
    return int(value)


#: The name of a study in the storage.
study_argument = click.argument("study", required=False, shell_complete=study_names)
storage_option = click.option(
    "--storage",
    "storage_url",
    metavar="URL",
    default="sqlite:///kmnist-search.db",
    envvar="KMNIST_SEARCH_STORAGE",
    show_default=True,
    show_envvar=True,
    callback=_or_as_given_before,
    help="Database that holds the studies.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
per_gpu_option = click.option(
    "--per-gpu",
    metavar="auto|N",
    default="auto",
    callback=_auto_or_number,
    envvar="KMNIST_SEARCH_PER_GPU",
    show_default=True,
    show_envvar=True,
    help="Trials to train at the same time on a GPU; auto measures how many are fastest.",
)
checkpoints_option = click.option(
    "--checkpoints",
    "checkpoint_dir",
    metavar="FOLDER",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="KMNIST_SEARCH_CHECKPOINTS",
    show_envvar=True,
    help="Folder for checkpoints. Share it so that any machine can resume a trial.  "
    "[default: beside a SQLite file, else here]",
)
artifacts_option = click.option(
    "--artifacts",
    metavar="FOLDER|URL",
    envvar="KMNIST_SEARCH_ARTIFACTS",
    show_envvar=True,
    help="Folder or bucket (s3://, gs://) for kept models and pictures.  [default: beside the checkpoints]",
)
data_dir_option = click.option(
    "--data-dir",
    metavar="FOLDER",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    envvar="KMNIST_SEARCH_DATA",
    show_envvar=True,
    help="Folder that contains the images.  [default: your cache folder]",
)
force_option = click.option("--force", is_flag=True, help="Replace what is there already.")
watch_option = click.option("--watch", "watches", is_flag=True, help="Show the study until all trials are finished.")


def stored_study(storage_url: str, name: str | None, checkpoint_dir: Path | None = None) -> "SearchStudy":
    """Return a study of a storage; without a name, the only one or the one last worked on.

    Raises:
        InputError: there is no such storage, or no such study in it.
    """
    from kmnist_search.database.storage import open_storage
    from kmnist_search.study.opening import find_study

    return find_study(open_storage(storage_url, create=False, checkpoint_dir=checkpoint_dir), name)


def resolve_typed(value: str, meant: str) -> None:
    """Let `typed_command` show what a value meant that would mean something else when it is typed again."""
    click.get_current_context().meta.setdefault(RESOLVED, {})[value] = meant


def typed_command() -> str:
    """Return the command line of this process as it may be shown, without passwords and addresses of webhooks."""
    from kmnist_search.database.url import without_password

    shown = ["kmnist-search"]
    resolved = click.get_current_context().meta.get(RESOLVED, {})
    for typed in sys.argv[1:]:
        before, equals, last = typed.rpartition("=")
        argument = f"{before}{equals}{resolved.get(last, last)}"
        option, equals, value = argument.rpartition("=") if argument.startswith("--storage=") else ("", "", argument)
        if webhook := re.match(r"(--notify=)?https?://", argument):
            argument, value = f"{webhook[1] or ''}URL", ""
        shown.append(f"{option}{equals}{without_password(value)}" if "://" in value else argument)
    return shlex.join(shown)


def typed_storage() -> str:
    """Return --storage and its value as part of another command, without a password; empty if it was not typed."""
    from kmnist_search.database.url import check_url, to_type

    if not is_typed("storage_url"):
        return ""
    return f" --storage {shlex.quote(to_type(check_url(click.get_current_context().params['storage_url'])))}"


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))
