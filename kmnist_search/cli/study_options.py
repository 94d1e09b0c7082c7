"""The options that name a study file and override its settings.

Imports that take time wait inside the functions, so that `--help` answers at once.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kmnist_search.cli.completion import study_sources
from kmnist_search.cli.options import grouped, resolve_typed

if TYPE_CHECKING:
    from kmnist_search.study_file.schema import SearchFile


@dataclass(frozen=True)
class More:
    """So many trials more than the study has."""

    trials: int


class _Trials(click.ParamType[int | More]):
    """A number of trials in all, such as 40, or of more trials, such as +20."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | More:
        text = str(value).strip()
        if not text.removeprefix("+").isdecimal() or int(text) < 1:
            self.fail(f"{value!r} is no number of trials. Write 40 (in all) or +20 (more than it has).", param, ctx)
        return More(int(text)) if text.startswith("+") else int(text)


@dataclass(frozen=True, kw_only=True)
class AskedStudy:
    """The study that a command asks for. None leaves a setting as it is in the study file.

    Attributes:
        source: name of a built-in study, or the path of a study file.
        trials: the budget; see `budget`.
        overrides: settings to change, each as `table.key=value`.
    """

    source: str
    trials: int | More | None
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

    def file(self) -> "SearchFile":
        """Return the study file with all changes.

        Raises:
            StudyFileError: there is none, or it has a mistake.
        """
        from kmnist_search.study_file.parser import load

        return load(self.path(), overrides=self.changes())

    def budget(self, storage_url: str) -> int | None:
        """Return the budget that was typed, or None. The command to resume then names it in all.

        Raises:
            StudyFileError: see `file`.
            StorageError: the database cannot be used.
        """
        if not isinstance(self.trials, More):
            return self.trials
        from kmnist_search.database.storage import open_storage
        from kmnist_search.errors import StorageEmptyError, StudyNotFoundError
        from kmnist_search.study.opening import find_study

        total = self.trials.trials
        with suppress(StorageEmptyError, StudyNotFoundError):
            study = find_study(open_storage(storage_url, create=False), self.file().study.name)
            total += study.counts().total
            study.storage.disconnect()
        resolve_typed(f"+{self.trials.trials}", str(total))
        return total

    def changes(self) -> list[str]:
        """Return all changes as `table.key=value`, also those by options with names of their own."""
        named = {key: value for key, (_, value) in self._named().items() if value is not None}
        return [*self.overrides, *(f"{key}={json.dumps(value)}" for key, value in named.items())]

    def _named(self) -> dict[str, tuple[str, Any]]:
        return {
            "study.name": ("--name", self.name),
            "study.seed": ("--seed", self.seed),
            "train.epochs": ("--epochs", self.epochs),
        }


#: Gives a command the parameter `asked`, an `AskedStudy`.
study_options = grouped(
    "asked",
    AskedStudy,
    click.argument("source", metavar="[STUDY|FILE]", default="kmnist", shell_complete=study_sources),
    click.option(
        "--trials", type=_Trials(), help="Trials in all; +20 is 20 more than it has.  [default: the study file's]"
    ),
    click.option("--name", metavar="NAME", help="Name of the study in the storage.  [default: the study file's]"),
    click.option("--seed", type=click.IntRange(min=0), help="Seed of the study.  [default: the study file's]"),
    click.option("--epochs", type=click.IntRange(min=1), help="Epochs of a trial.  [default: the study file's]"),
    click.option("--set", "overrides", multiple=True, metavar="TABLE.KEY=VALUE", help="Change a study file's value."),
)
