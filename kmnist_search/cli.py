"""The command line: parse, call one function, print. Nothing imports this.

Imports that take time wait inside the commands, so that `--help` answers at once.
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

from kmnist_search.errors import KmnistSearchError

WORK_FAILED = 1
INTERRUPTED = 130
DEFAULT_STORAGE = "sqlite:///kmnist-search.db"

Command = TypeVar("Command", bound=Callable[..., Any])


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
            from kmnist_search.storage import DATABASE_ERRORS

            if not isinstance(error, DATABASE_ERRORS):
                raise
            click.echo(f"Error: the database failed: {error.__cause__ or error}", err=True)
            click.echo("What it holds is kept; the next run takes up the trial that was at work.", err=True)
            ctx.exit(WORK_FAILED)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order they are used, not of the alphabet


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


def storage_option(command: Command) -> Command:
    return click.option(
        "--storage",
        "storage_url",
        metavar="URL",
        default=DEFAULT_STORAGE,
        envvar="KMNIST_SEARCH_STORAGE",
        show_default=True,
        show_envvar=True,
        help="Database of the studies.",
    )(command)


def json_option(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")(command)


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
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of proposals and trainings.  [default: the study's]")
@click.option("--epochs", type=click.IntRange(min=1), help="Epochs of a trial.  [default: the study's]")
@click.option("--set", "overrides", multiple=True, metavar="TABLE.KEY=VALUE", help="Change the study file's value.")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    envvar="KMNIST_SEARCH_DATA",
    show_envvar=True,
    help="Folder of the images.  [default: the user's cache folder]",
)
@json_option
def run(
    study: str,
    trials: int | None,
    storage_url: str,
    name: str | None,
    timeout: float | None,
    target: float | None,
    device: str,
    seed: int | None,
    epochs: int | None,
    overrides: tuple[str, ...],
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Run a search until its study has as many finished trials as asked for.

    STUDY is a built-in study (kmnist, kmnist-cpu, quickstart) or the path of a study file. Given again, the same
    command goes on where the study stands; any number of processes may work on one study.
    """
    # Read by OpenMP when torch is imported. Threads that spin while they wait steal the cores from each other: two
    # runs on two cores made 15 steps/s each in place of 53 (tests/benchmarks/LOG.md).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    from rich.console import Console

    from kmnist_search import terminal
    from kmnist_search.builtin import find_study_file
    from kmnist_search.data.files import default_data_dir
    from kmnist_search.progress import progress_of
    from kmnist_search.search import prepare
    from kmnist_search.signals import StopSignals
    from kmnist_search.summary import progress_summary

    options = {"study.name": json.dumps(name) if name is not None else None, "study.seed": seed, "train.epochs": epochs}
    search = prepare(
        find_study_file(study),
        overrides=[*overrides, *(f"{key}={value}" for key, value in options.items() if value is not None)],
        trials=trials,
        target=target,
        storage_url=storage_url,
        data_dir=data_dir or default_data_dir(),
        device=device,
    )
    console = Console(stderr=as_json)
    terminal.announce(console, search)
    with StopSignals() as signals:
        worker, events = search.work(signals, seconds=timeout)
        terminal.follow(console, search, events)
    terminal.conclude(console, search, worker.stopped_by, command=shlex.join(["kmnist-search", *sys.argv[1:]]))
    if as_json:
        _print_json({**progress_summary(progress_of(search.study)), "stopped_by": worker.stopped_by})
    if worker.stopped_by == "signal":
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

    from kmnist_search.progress import progress_of
    from kmnist_search.storage import open_storage
    from kmnist_search.study import find_study
    from kmnist_search.summary import progress_summary
    from kmnist_search.terminal import status_view

    progress = progress_of(find_study(open_storage(storage_url, create=False), study))
    if as_json:
        _print_json(progress_summary(progress))
    else:
        Console().print(status_view(progress))


@main.command(epilog="Example: kmnist-search best quickstart --json")
@click.argument("study", required=False)
@storage_option
@json_option
def best(study: str | None, storage_url: str, as_json: bool) -> None:
    """Show the best complete trial of a study.

    STUDY is its name in the storage; without it, the only one or the one last worked on. What is shown was chosen on
    validation images: expect less on new ones.
    """
    from rich.console import Console

    from kmnist_search.storage import open_storage
    from kmnist_search.study import find_study
    from kmnist_search.summary import best_summary
    from kmnist_search.terminal import best_view

    found = find_study(open_storage(storage_url, create=False), study)
    summary = best_summary(found)
    if as_json:
        _print_json(summary)
    else:
        Console().print(best_view(found))


@main.command(epilog="Example: kmnist-search studies --storage sqlite:///kmnist-search.db")
@storage_option
@json_option
def studies(storage_url: str, as_json: bool) -> None:
    """List the studies of a storage, the one last worked on first."""
    from rich.console import Console

    from kmnist_search.progress import progress_of
    from kmnist_search.storage import open_storage
    from kmnist_search.study import find_study, study_names
    from kmnist_search.summary import progress_summary
    from kmnist_search.terminal import studies_view

    storage = open_storage(storage_url, create=False)
    progress = [progress_of(find_study(storage, name)) for name in study_names(storage)]
    if as_json:
        _print_json([progress_summary(each) for each in progress])
    else:
        Console().print(studies_view(progress))


@main.command(epilog="Example: kmnist-search dashboard --port 8080")
@storage_option
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port; 0 takes a free one."
)
def dashboard(storage_url: str, port: int) -> None:
    """Serve optuna-dashboard on this machine until Ctrl-C."""
    from kmnist_search.dashboard import HOST, server
    from kmnist_search.storage import open_storage

    serving = server(open_storage(storage_url, create=False), port)
    click.echo(f"Dashboard of {storage_url}: http://{HOST}:{serving.effective_port}/dashboard  (Ctrl-C ends it)")
    serving.run()


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))


if __name__ == "__main__":
    main()
