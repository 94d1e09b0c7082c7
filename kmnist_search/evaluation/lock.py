"""A lock: only one process at a time may retrain or test the models of a study."""

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from kmnist_search.errors import StudyInUseError
from kmnist_search.study.study import SearchStudy


@contextmanager
def alone(study: SearchStudy) -> Iterator[None]:
    """Prevent other processes from retraining or testing the same study with the same checkpoints.

    Raises:
        StudyInUseError: another process does so now.
    """
    try:
        with FileLock(study.checkpoint_dir / "retraining.lock", timeout=0):
            yield
    except Timeout:
        raise StudyInUseError(
            f"study {study.name!r} is being retrained by another process. Wait for it, or stop it: "
            "the same command then resumes."
        ) from None
