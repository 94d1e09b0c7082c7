"""The commands that steer a study: `enqueue` and `retry` what it tries next, `stop`, `pause` and `resume` its workers.

Imports that take time wait inside the functions, so that `--help` answers at once.
"""

import tomllib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from kmnist_search.cli.completion import hyperparameters, study_names
from kmnist_search.cli.options import storage_option, stored_study, study_argument, typed_storage
from kmnist_search.wording import count, shown_params

if TYPE_CHECKING:
    from kmnist_search.queue.halt import Halt
    from kmnist_search.study.study import SearchStudy


def _value(text: str) -> Any:
    """Return a value as in a study file: TOML, or else a plain word."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def _hyperparameters(_ctx: click.Context, _param: click.Parameter, words: Sequence[str]) -> dict[str, Any]:
    """Return the hyperparameters that were typed as NAME=VALUE."""
    found: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not (name and equals and text):
            raise click.BadParameter(f"{word!r}: write NAME=VALUE, such as learning_rate=0.004")
        if name in found:
            raise click.BadParameter(f"{name} is given twice.")
        found[name] = _value(text)
    return found


@click.command(epilog="Example: kmnist-search enqueue kmnist-cpu learning_rate=0.004 dim=96")
@click.argument("study", shell_complete=study_names)
@click.argument(
    "chosen",
    metavar="NAME=VALUE...",
    nargs=-1,
    required=True,
    callback=_hyperparameters,
    shell_complete=hyperparameters,
)
@storage_option
def enqueue(study: str, chosen: dict[str, Any], storage_url: str) -> None:
    """Let the next trial of a study take these hyperparameters.

    Those that are left out are left to the sampler. The trial takes the place of one that waits; if none waits, the
    study gets one more.
    """
    from kmnist_search.study.steering import enqueue as enqueue_in

    found = stored_study(storage_url, study)
    more = enqueue_in(found, [chosen])
    total = f"; the study has {count(found.counts().total, 'trial')} now" if more else ""
    click.echo(f"one of the next trials takes {shown_params(chosen)}{total}")
    _tell_who_trains(found)


@click.command(epilog="Example: kmnist-search retry kmnist --failed")
@study_argument
@click.option("--failed", is_flag=True, required=True, help="The failed trials that were not tried again before.")
@storage_option
def retry(study: str | None, failed: bool, storage_url: str) -> None:
    """Try failed trials again.

    Each becomes a new trial with the same hyperparameters. STUDY is its name in the storage; without it, the only one
    or the one last worked on.
    """
    from kmnist_search.study.steering import retry_failed

    found = stored_study(storage_url, study)
    numbers = retry_failed(found)
    if not numbers:
        click.echo(f"nothing to retry: study {found.name} has no failed trial, or each was tried again before")
        return
    click.echo(f"tried again: {', '.join(map(str, numbers))}; the study has {count(found.counts().total, 'trial')} now")
    _tell_who_trains(found)


@click.command(epilog="Example: kmnist-search stop kmnist")
@study_argument
@storage_option
def stop(study: str | None, storage_url: str) -> None:
    """End all workers of a study, on all machines.

    Each hands back what it trains, with a checkpoint, and ends; so do workers that join later, until the study is
    resumed, run or submitted again. STUDY is its name in the storage; without it, the only one or the one last worked
    on.
    """
    _halt(storage_url, study, "stopped")


@click.command(epilog="Example: kmnist-search pause kmnist")
@study_argument
@storage_option
def pause(study: str | None, storage_url: str) -> None:
    """Let all workers of a study wait, on all machines.

    Each hands back what it trains, with a checkpoint, and waits until the study is resumed, run or submitted. STUDY is
    its name in the storage; without it, the only one or the one last worked on.
    """
    _halt(storage_url, study, "paused")


@click.command(epilog="Example: kmnist-search resume kmnist")
@study_argument
@storage_option
def resume(study: str | None, storage_url: str) -> None:
    """Let a paused or stopped study be worked on again.

    Workers that wait go on; those that have ended are not started. STUDY is its name in the storage; without it, the
    only one or the one last worked on.
    """
    from kmnist_search.study.steering import resume as resume_study

    found = stored_study(storage_url, study)
    before = resume_study(found)
    click.echo(f"study {found.name} was {'neither paused nor stopped' if before is None else f'{before}; it goes on'}")
    if found.counts().unfinished:
        _tell_who_trains(found)


def _halt(storage_url: str, name: str | None, how: "Halt") -> None:
    from kmnist_search.study.steering import halt

    found = stored_study(storage_url, name)
    alive = halt(found, how)
    if alive is None:
        click.echo(f"study {found.name} is finished, and no worker is there: nothing to be {how}")
        return
    done = "wait" if how == "paused" else "end"
    who = f"{count(alive, 'worker')} will hand back what they train and {done}" if alive else "no worker is there now"
    click.echo(f"study {found.name} is {how}: {who}. To go on: kmnist-search resume {found.name}{typed_storage()}")


def _tell_who_trains(study: "SearchStudy") -> None:
    if (halt := study.halt()) is not None:
        click.echo(f"the study is {halt}, so it waits. To go on: kmnist-search resume {study.name}{typed_storage()}")
        return
    alive = sum(not worker.is_gone for worker in study.workers())
    if alive:
        click.echo(f"{count(alive, 'worker')} of the study will train what waits")
    else:
        click.echo(f"no worker is there. To train what waits: kmnist-search worker {study.name}{typed_storage()}")
