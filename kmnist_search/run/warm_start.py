"""The warm start of a study: its first trials are the best of another study."""

from typing import Any

from kmnist_search.database.storage import open_storage
from kmnist_search.errors import ConfigError
from kmnist_search.study.opening import find_study, study_names
from kmnist_search.study.ranking import distinct
from kmnist_search.study_file.schema import SearchFile

#: The most first trials that are taken from another study.
TAKEN = 5


def warm_started(file: SearchFile, storage_url: str, source: str) -> tuple[SearchFile, int]:
    """Return a study file whose first trials are the best distinct ones of another study, and how many those are.

    A hyperparameter whose value is not in the space of `file` is left to the sampler. If the study exists already,
    nothing is added: it began as it did.

    Args:
        file: of the new study.
        storage_url: the database of both.
        source: name of the other study.

    Raises:
        InputError: there is no such study, it has no complete trial, or none that fits.
    """
    storage = open_storage(storage_url, create=False)
    try:
        if file.study.name in study_names(storage):
            return file, 0
        study = find_study(storage, source)
        if not isinstance(other := study.file, SearchFile):
            raise ConfigError(f"--from {source}: its trainings are planned, so it has no hyperparameters to begin with")
        ranked = distinct(study.complete())
    finally:
        storage.disconnect()
    found = [_fitting(file, {**other.fixed, **trial.params}) for trial in ranked]
    first = list({repr(sorted(params.items())): params for params in found if params and file.allows(params)}.values())
    if not first:
        raise ConfigError(f"--from {source}: none of its complete trials fits into [space] of {file.study.name!r}")
    first = first[:TAKEN]
    return file.model_copy(update={"enqueue": (*first, *file.enqueue)}), len(first)


def _fitting(file: SearchFile, hyperparameters: dict[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters that the space contains, as its distributions take them."""
    return {
        name: hyperparameters[name]
        for name, spec in file.space.items()
        if name in hyperparameters and spec.contains(hyperparameters[name])
    }
