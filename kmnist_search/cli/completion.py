"""What the shell completes: names of studies, study files, and numbers of trials.

Imports that take time wait inside the functions, so that `--help` answers at once.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from kmnist_search.database.storage import Storage


def study_names(ctx: click.Context, _param: click.Parameter, incomplete: str) -> Sequence[str]:
    """Return the names of the studies in the storage that begin so."""
    from kmnist_search.errors import KmnistSearchError
    from kmnist_search.study import opening

    with suppress(KmnistSearchError), _storage(ctx) as storage:
        return [name for name in opening.study_names(storage) if name.startswith(incomplete)]
    return []


def study_sources(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> Sequence[CompletionItem]:
    """Return the built-in studies that begin so, and let the shell complete files."""
    from kmnist_search.study_file.builtin import builtin_studies

    names = [name for name in builtin_studies() if name.startswith(incomplete)]
    return [CompletionItem(incomplete, type="file"), *map(CompletionItem, names)]  # bash forgets what is before a file


def trial_numbers(ctx: click.Context, _param: click.Parameter, incomplete: str) -> Sequence[str]:
    """Return the numbers of the started trials of the study that was typed that begin so."""
    from kmnist_search.errors import KmnistSearchError
    from kmnist_search.study.opening import find_study

    with suppress(KmnistSearchError), _storage(ctx) as storage:
        study = find_study(storage, next(iter(ctx.params.get("studies") or ()), None))
        return [str(trial.number) for trial in study.trials() if str(trial.number).startswith(incomplete)]
    return []


def trial_columns(ctx: click.Context, _param: click.Parameter, incomplete: str) -> Sequence[str]:
    """Return the columns of the list of trials that begin so."""
    from kmnist_search.errors import KmnistSearchError
    from kmnist_search.study import trial_rows
    from kmnist_search.study.opening import find_study

    with suppress(KmnistSearchError), _storage(ctx) as storage:
        study = find_study(storage, next(iter(ctx.params.get("studies") or ()), None))
        return [name for name in trial_rows.trial_columns(study) if name.startswith(incomplete)]
    return []


def hyperparameters(ctx: click.Context, _param: click.Parameter, incomplete: str) -> Sequence[str]:
    """Return NAME= for the hyperparameters that the study which was typed searches."""
    from kmnist_search.errors import KmnistSearchError
    from kmnist_search.study.opening import find_study

    with suppress(KmnistSearchError), _storage(ctx) as storage:
        names = find_study(storage, ctx.params.get("study")).file.space
        return [f"{name}=" for name in names if name.startswith(incomplete)]
    return []


@contextmanager
def _storage(ctx: click.Context) -> Iterator["Storage"]:
    """Yield the storage of the command that is typed. One that is away or empty is an error, and completes nothing."""
    from kmnist_search.database.storage import open_storage

    storage = open_storage(ctx.params["storage_url"], create=False)
    try:
        yield storage
    finally:
        storage.disconnect()
