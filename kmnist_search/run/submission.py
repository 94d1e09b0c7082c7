"""A study and its queue made once, for whoever then works on them. Knows no device and trains nothing."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kmnist_search.data.search_data import StudyData
from kmnist_search.database.errors import when_it_answers
from kmnist_search.database.storage import Storage, open_storage
from kmnist_search.database.url import check_url
from kmnist_search.errors import ConfigError, StorageEmptyError
from kmnist_search.host.environment import package_version
from kmnist_search.host.files import check_writable
from kmnist_search.study.study import SearchStudy, open_study
from kmnist_search.study_file.schema import StudyFile


@dataclass(frozen=True, eq=False, kw_only=True)
class Submission:
    """A study whose queue is filled up to its budget.

    Attributes:
        data: the images that it is searched on.
        recovered: numbers of trials that an owner who is gone had left.
        version_before: of this package, if the study was worked on with another so far.
    """

    study: SearchStudy
    file: StudyFile
    data: StudyData
    budget: int
    recovered: Sequence[int]
    version_before: str | None


def submit(
    file: StudyFile, *, trials: int | None, storage_url: str, data_dir: Path, checkpoint_dir: Path | None = None
) -> Submission:
    """Check everything that the workers of a study will need, cheap things first, then make or open it and its queue.

    Any number of processes may do so, and again: there is one study, with so many trials in all.

    Args:
        file: the study.
        trials: the budget; None is the study file's own. One of systems has its enqueued trials instead.
        storage_url: the database.
        data_dir: folder of the images.
        checkpoint_dir: folder of the checkpoints; None is the storage's own.

    Raises:
        InputError: something of that cannot be; no trial was added.
    """
    if checkpoint_dir is not None:
        check_writable(checkpoint_dir)
    _check_reachable(storage_url)  # before images are fetched
    data = StudyData(data_dir)
    for config in dict.fromkeys(file.data_of(entry) for entry in file.enqueue) if file.systems else file.datas:
        data.of(config)
    _check_batch_sizes(file, data)
    storage = open_storage(storage_url, create=True, checkpoint_dir=checkpoint_dir)
    budget = trials if trials is not None else file.study.trials
    # Where many begin at the same moment, a server may have no connection left for a while.
    return when_it_answers()(_made_ready, storage, file, data, budget)


def _made_ready(storage: Storage, file: StudyFile, data: StudyData, budget: int) -> Submission:
    """Open the study, recover what was lost and fill its queue; done again it changes nothing."""
    study = open_study(storage, file)
    study.remember_data(data.digests, data.data_dir)
    version_before = study.remember_version(package_version())
    study.touch()
    recovered = study.recover(file.study.max_retries)
    if file.systems:
        study.add(file.enqueue)
        budget = study.counts().total
    else:
        study.fill(budget, file.enqueue)
    storage.let_go()
    return Submission(
        study=study, file=file, data=data, budget=budget, recovered=recovered, version_before=version_before
    )


def _check_reachable(storage_url: str) -> None:
    if check_url(storage_url).get_backend_name() == "sqlite":
        return
    with suppress(StorageEmptyError):
        open_storage(storage_url, create=False).let_go()


def _check_batch_sizes(file: StudyFile, data: StudyData) -> None:
    images = data.train_images
    sizes = file.space["batch_size"].values() if "batch_size" in file.space else [file.middle().batch.batch_size]
    if max(sizes) > images:
        raise ConfigError(f"batch_size {max(sizes)} is more than the {images:,} training images of {data.datasets}")
