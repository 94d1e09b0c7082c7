"""Join a study that is in a database as one of its workers. Adds no trial to its queue."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kmnist_search.data.files import default_data_dir
from kmnist_search.data.search_data import StudyData
from kmnist_search.database.errors import when_it_answers
from kmnist_search.database.storage import open_storage
from kmnist_search.engine.device import device_named
from kmnist_search.errors import DatabaseAwayError, StorageAwayError, StorageEmptyError, StudyNotFoundError
from kmnist_search.host.environment import package_version
from kmnist_search.host.files import check_writable
from kmnist_search.run.search import Search, check_artifacts, check_per_gpu
from kmnist_search.study.artifacts import open_artifact_store
from kmnist_search.study.study import SearchStudy, find_study
from kmnist_search.worker.stop import Limits

#: How often to look again for a database, or for a study in it.
LOOK_SECONDS = 2.0


def until_reachable(storage_url: str, *, database_timeout: float) -> Iterator[str]:
    """Yield again and again why a database cannot be reached, until it can. Between two reasons some time passes.

    Raises:
        DatabaseAwayError: it could not be reached for so many seconds.
        StorageError: it can be reached, and not be used.
    """
    deadline = time.monotonic() + database_timeout
    while True:
        try:
            open_storage(storage_url, create=False).let_go()
        except StorageEmptyError:
            return
        except StorageAwayError as error:
            if time.monotonic() > deadline:
                raise DatabaseAwayError(f"{error} That was tried for {database_timeout:g} s.") from None
            yield str(error)
            time.sleep(LOOK_SECONDS)
        else:
            return


@contextmanager
def already_reached() -> Iterator[None]:
    """Take a database that cannot be reached for one that is away: it was there a moment ago, its URL is right.

    Raises:
        DatabaseAwayError: it cannot be reached now.
    """
    try:
        yield
    except StorageAwayError as error:
        raise DatabaseAwayError(str(error)) from None


def until_there(storage_url: str, *, name: str | None, database_timeout: float) -> Iterator[str]:
    """Yield again and again why a study cannot be joined, until it is there.

    Raises:
        DatabaseAwayError: its database could not be reached for so many seconds.
        StorageError: it can be reached, and not be used.
    """
    while True:
        yield from until_reachable(storage_url, database_timeout=database_timeout)
        try:
            find_study(open_storage(storage_url, create=False), name).storage.let_go()
        except (StorageEmptyError, StudyNotFoundError) as error:
            yield str(error)
            time.sleep(LOOK_SECONDS)
        except StorageAwayError:
            continue
        else:
            return


def join(
    name: str | None,
    *,
    storage_url: str,
    data_dir: Path | None,
    device: str,
    checkpoint_dir: Path | None,
    artifacts: str | None,
    database_timeout: float,
    per_gpu: int | None,
    max_trials: int | None,
    waits: bool,
) -> Search:
    """Join a study as one of its workers; it carries its own settings. Adds no trial to its queue.

    Args:
        name: of the study in the database; None is the only one, or the one last worked on.
        storage_url: the database.
        data_dir: folder of the images; None is the one the study was last searched with, or else the user's cache.
        device: "auto", "cpu", "cuda" or "cuda:N".
        checkpoint_dir: folder of the checkpoints; None is the storage's own.
        artifacts: folder or bucket of the artifacts; None is the folder beside the database.
        database_timeout: seconds that the database may be away while trials run.
        per_gpu: trials to train at a time on a GPU; None is as many as pay.
        max_trials: as many as a worker finishes; None is no such limit.
        waits: stay with nothing left to claim.

    Raises:
        StudyNotFoundError: there is no such study.
        StudyChangedError: it is worked on with another version of this package, or other images.
        InputError: something else of that cannot be.
    """
    chosen = device_named(device)
    check_per_gpu(per_gpu, chosen)
    if checkpoint_dir is not None:
        check_writable(checkpoint_dir)
    check_artifacts(artifacts)
    storage = open_storage(storage_url, create=False, checkpoint_dir=checkpoint_dir)
    study = find_study(storage, name)
    study.check_version(package_version())
    file, folder = study.file, data_dir or study.data_dir() or default_data_dir()
    storage.let_go()  # images may take a while to come
    data = StudyData(folder)
    for config in study.datas_left(file):
        data.of(config)
    recovered = when_it_answers()(_joined, study, data)
    return Search(
        study=study,
        file=file,
        data=data,
        artifact_store=open_artifact_store(artifacts, storage.url),
        device=chosen,
        limits=Limits(max_trials=max_trials, waits=waits),
        recovered=recovered,
        database_timeout=database_timeout,
        per_gpu=per_gpu,
    )


def _joined(study: SearchStudy, data: StudyData) -> list[int]:
    study.remember_data(data.digests, data.data_dir)
    study.touch()
    recovered = study.recover()
    study.storage.let_go()
    return recovered
