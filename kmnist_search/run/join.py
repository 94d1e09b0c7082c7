"""Join a study in a database as one of its workers, without adding trials to its queue."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from kmnist_search.data.files import default_data_dir
from kmnist_search.data.search_data import StudyData
from kmnist_search.database.errors import when_it_answers
from kmnist_search.database.storage import open_storage
from kmnist_search.errors import DatabaseAwayError, StorageAwayError, StorageEmptyError, StudyNotFoundError
from kmnist_search.host.environment import package_version
from kmnist_search.run.options import RunOptions
from kmnist_search.run.placement import check_device
from kmnist_search.run.search import Search
from kmnist_search.run.submission import check_folders
from kmnist_search.study.model_store import check_shared
from kmnist_search.study.opening import find_study
from kmnist_search.study.study import SearchStudy

#: How often to look again for a database, or for a study in it.
LOOK_SECONDS = 2.0


def until_reachable(options: RunOptions, *, with_study: bool = False, name: str | None = None) -> Iterator[str]:
    """Yield the reason why the database cannot be used, every `LOOK_SECONDS` until it can.

    Args:
        options: `database_timeout` is for a database that cannot be reached; a study is waited for without limit.
        with_study: also wait for a study.
        name: of that study; None means any.

    Raises:
        DatabaseAwayError: it could not be reached for `database_timeout` seconds.
        StorageError: it can be reached but not used.
    """
    deadline = time.monotonic() + options.database_timeout
    while True:
        try:
            storage = open_storage(options.storage_url, create=False)
            if with_study:
                find_study(storage, name)
            storage.disconnect()
            return
        except StorageAwayError as error:
            if time.monotonic() > deadline:
                raise DatabaseAwayError(f"{error} It was tried for {options.database_timeout:g} s.") from None
            reason = str(error)
        except (StorageEmptyError, StudyNotFoundError) as error:
            if not with_study:
                return
            reason, deadline = str(error), time.monotonic() + options.database_timeout
        yield reason
        time.sleep(LOOK_SECONDS)


@contextmanager
def already_reached() -> Iterator[None]:
    """Raise DatabaseAwayError instead of StorageAwayError: the database was just reached, so its URL is right."""
    try:
        yield
    except StorageAwayError as error:
        raise DatabaseAwayError(str(error)) from None


def join(name: str | None, options: RunOptions) -> Search:
    """Join a study as one of its workers, with the study's own settings. Adds no trial to its queue.

    Args:
        name: of the study in the database; None means the only one, or the one used last.
        options: all but `trials` are used.

    Raises:
        StudyNotFoundError: there is no such study.
        StudyChangedError: it uses another version of this package, or other images.
        InputError: the options cannot be used.
    """
    check_device(options)
    check_folders(options)
    storage = open_storage(options.storage_url, create=False, checkpoint_dir=options.checkpoint_dir)
    study = find_study(storage, name)
    study.check_version(package_version())
    file = study.file.with_trainings(study.trainings_left)
    folder = options.data_dir or study.data_dir() or default_data_dir()
    storage.disconnect()  # fetching images may take a while
    data = StudyData(folder)
    for config in file.datas():
        data.of(config)
    if file.keeps:
        check_shared(study, options.artifacts)
    recovered = when_it_answers()(_joined, study, data)
    return Search(study=study, file=file, data=data, options=options, recovered=recovered)


def _joined(study: SearchStudy, data: StudyData) -> list[int]:
    study.record_data(data.digests, data.data_dir)
    study.touch()
    recovered = study.recover()
    study.storage.disconnect()
    return recovered
