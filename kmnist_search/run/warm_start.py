"""The warm start of a study: its first trials are the best of another study."""

from typing import Any

from kmnist_search.config import TrialConfig, hyperparameters_of
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
    found = [_fitting(file, other.config(trial.params)) for trial in ranked]
    first = list({repr(sorted(params.items())): params for params in found if params and file.allows(params)}.values())
    if not first:
        raise ConfigError(f"--from {source}: none of its complete trials fits into [space] of {file.study.name!r}")
    first = first[:TAKEN]
    return file.model_copy(update={"enqueue": (*first, *file.enqueue)}), len(first)


def _fitting(file: SearchFile, config: TrialConfig) -> dict[str, Any]:
    """Return the hyperparameters that the space contains, as the entry of a queue has them."""
    hyperparameters = hyperparameters_of(config, with_defaults=True)
    num_blocks = hyperparameters.get("num_blocks", 0)
    found: dict[str, Any] = {}
    for name, spec in file.space.items():
        value = hyperparameters.get(name)
        if not spec.each_block:
            if spec.contains(value):
                found[name] = value
        elif num_blocks in file.num_blocks:
            of_blocks = value if isinstance(value, list) else [value for _ in range(num_blocks)]
            if all(spec.contains(each) for each in of_blocks):
                found[name] = of_blocks
    return found
