"""The options that say which study is meant, and which of its settings are changed.

Imports that take time wait inside the functions, so that `--help` answers at once.
"""

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kmnist_search.cli.options import Command

if TYPE_CHECKING:
    from kmnist_search.study_file.schema import StudyFile


@dataclass(frozen=True, kw_only=True)
class AskedStudy:
    """A study as it is asked for.

    Attributes:
        source: a built-in study or the path of a study file.
        trials: that it shall end with; None is what the file says, and so for the others.
        overrides: `table.key=value` each, put over what the file says.
    """

    source: str
    trials: int | None
    name: str | None
    seed: int | None
    epochs: int | None
    overrides: Sequence[str]

    def __post_init__(self) -> None:
        typed = {override.partition("=")[0].strip() for override in self.overrides}
        for key, (option, value) in self._named().items():
            if value is not None and key in typed:
                raise click.UsageError(f"{option} and --set {key}= say the same thing. Leave one of them out.")

    def path(self) -> Path:
        """Return the path of the study file.

        Raises:
            StudyFileError: there is none.
        """
        from kmnist_search.study_file.builtin import find_study_file

        return find_study_file(self.source)

    def file(self) -> "StudyFile":
        """Return the study file with all that is to be different.

        Raises:
            StudyFileError: there is none, or something is wrong with it.
        """
        from kmnist_search.study_file.parser import load

        return load(self.path(), overrides=self.changes())

    def changes(self) -> list[str]:
        """Return what is to be different, options that have names of their own among it."""
        named = {key: value for key, (_, value) in self._named().items() if value is not None}
        return [*self.overrides, *(f"{key}={json.dumps(value)}" for key, value in named.items())]

    def _named(self) -> dict[str, tuple[str, Any]]:
        return {
            "study.name": ("--name", self.name),
            "study.seed": ("--seed", self.seed),
            "train.epochs": ("--epochs", self.epochs),
        }


def study_options(command: Command) -> Command:
    """Give a command the parameter `asked`, an `AskedStudy`, and the argument and options that it is made of."""

    @functools.wraps(command)
    def gathered(*, study: str, **values: Any) -> Any:
        names = ("trials", "name", "seed", "epochs", "overrides")
        asked = AskedStudy(source=study, **{name: values.pop(name) for name in names})
        return command(asked=asked, **values)

    options: Any = gathered
    for option in (
        click.option(
            "--set", "overrides", multiple=True, metavar="TABLE.KEY=VALUE", help="Change the study file's value."
        ),
        click.option("--epochs", type=click.IntRange(min=1), help="Epochs of a trial.  [default: the study's]"),
        click.option(
            "--seed", type=click.IntRange(min=0), help="Seed of proposals and trainings.  [default: the study's]"
        ),
        click.option("--name", help="Name of the study in the storage.  [default: the study file's]"),
        click.option(
            "--trials", type=click.IntRange(min=1), help="Trials the study shall end with.  [default: the study's]"
        ),
        click.argument("study", default="kmnist"),
    ):
        options = option(options)
    return options  # type: ignore[no-any-return]
