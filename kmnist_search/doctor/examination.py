"""All checks of a machine, in the order in which a page shows them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kmnist_search.database.storage import folder_beside
from kmnist_search.database.url import check_url
from kmnist_search.doctor import clusters, machine
from kmnist_search.doctor.database import database
from kmnist_search.doctor.finding import Finding
from kmnist_search.doctor.folders import checkpoints, images
from kmnist_search.errors import StorageError


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is checked beside the machine itself.

    Attributes:
        storage_url: of the database.
        checkpoint_dir: the folder for checkpoints; None for the one that belongs to the database.
        data_dir: the folder of the images; None for the user's cache folder.
        encoding, columns, is_terminal: of the output.
    """

    storage_url: str
    checkpoint_dir: Path | None
    data_dir: Path | None
    encoding: str
    columns: int
    is_terminal: bool


def examine(subject: Subject) -> Iterator[Finding]:
    """Check everything; yield each finding as soon as it is known."""
    yield from machine.software()
    yield from machine.processor()
    yield from machine.gpus()
    yield from images(subject.data_dir)
    yield from database(subject.storage_url)
    yield from checkpoints(subject.checkpoint_dir or _default_checkpoints(subject.storage_url))
    yield from clusters.slurm()
    yield from clusters.kubernetes()
    yield from machine.terminal(encoding=subject.encoding, columns=subject.columns, is_terminal=subject.is_terminal)


def _default_checkpoints(storage_url: str) -> Path:
    try:
        return folder_beside(check_url(storage_url), "checkpoints")
    except StorageError:  # a finding of its own
        return Path("kmnist-search.checkpoints")
