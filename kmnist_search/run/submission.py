"""Submission of a study: make or open it, and fill its queue for the workers."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from kmnist_search.data.files import default_data_dir
from kmnist_search.data.search_data import StudyData
from kmnist_search.database.errors import when_it_answers
from kmnist_search.database.storage import Storage, open_storage
from kmnist_search.errors import ConfigError, StorageEmptyError, StudyNotFoundError
from kmnist_search.host.environment import package_version
from kmnist_search.host.files import check_writable
from kmnist_search.run.options import RunOptions
from kmnist_search.run.placement import check_device
from kmnist_search.run.search import Search
from kmnist_search.study.artifacts import folder_of, open_bucket
from kmnist_search.study.model_store import check_shared
from kmnist_search.study.opening import find_study, open_study
from kmnist_search.study_file.schema import StudyFile


def prepare(file: StudyFile, options: RunOptions) -> Search:
    """Check what the workers will need, cheap checks first, then make or open the study and fill its queue.

    Many processes may do this at once and repeatedly: the trials are added only once.

    Args:
        file: the study. A plan gets its trainings, whatever the budget.
        options: of the run.

    Raises:
        InputError: the study, its images, its database or the options cannot be used; no trial was added.
    """
    _check_target(options.limits.target, file)
    check_device(options)
    check_folders(options)
    before = _folder_of_images(options.storage_url, file.study.name)  # a database that is away is told first
    data = StudyData(options.data_dir or before or default_data_dir())
    for config in file.datas():
        data.of(config)
        _check_batch_sizes(file, data)
    storage = open_storage(options.storage_url, create=True, checkpoint_dir=options.checkpoint_dir)
    # A server may have no free connection for a while when many processes start at once.
    return when_it_answers()(_filled, storage, file, data, options)


def check_folders(options: RunOptions) -> None:
    """Raise ConfigError if the folder of checkpoints or of artifacts is not writable."""
    if options.checkpoint_dir is not None:
        check_writable(options.checkpoint_dir)
    if options.artifacts is None:
        return
    folder = folder_of(options.artifacts)
    if folder is None:
        open_bucket(options.artifacts)
    else:
        check_writable(folder, option="--artifacts")


def _filled(storage: Storage, file: StudyFile, data: StudyData, options: RunOptions) -> Search:
    """Open the study, recover lost trials and fill its queue. Repeating this changes nothing."""
    study = open_study(storage, file)
    study.record_data(data.digests, data.data_dir)
    version_before = study.record_version(package_version())
    recovered = study.recover(file.study.max_retries)
    if file.keeps:
        check_shared(study, options.artifacts)
    budget = file.fill(study, file.study.trials if options.trials is None else options.trials)
    if not study.counts().reach(budget):  # else nothing is worked on
        study.touch()
    storage.disconnect()
    return Search(
        study=study,
        file=file,
        data=data,
        options=replace(options, limits=replace(options.limits, budget=budget)),
        recovered=recovered,
        version_before=version_before,
    )


def _check_target(target: float | None, file: StudyFile) -> None:
    if target is not None and (target <= 0 or (file.study.metric == "val_accuracy" and target > 1)):
        raise ConfigError(f"--target {target:g}: {file.study.metric} never gets there. 98 % is written 0.98")


def _folder_of_images(storage_url: str, name: str) -> Path | None:
    """Return the folder from which a study last read its images; None if there is no such study or folder."""
    with suppress(StorageEmptyError, StudyNotFoundError):
        storage = open_storage(storage_url, create=False)
        try:
            return find_study(storage, name).data_dir()
        finally:
            storage.disconnect()
    return None


def _check_batch_sizes(file: StudyFile, data: StudyData) -> None:
    images = data.train_images
    sizes = file.space["batch_size"].values() if "batch_size" in file.space else [file.middle().batch.batch_size]
    if max(sizes) > images:
        raise ConfigError(f"batch_size {max(sizes)} is more than the {images:,} training images of {data.datasets}")
