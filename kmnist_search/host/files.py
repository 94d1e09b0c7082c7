"""Folders of results: made whole or not at all. Knows nothing of what is in them."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kmnist_search.errors import ResultFolderError


def check_place(folder: Path, *, is_ours: bool, force: bool) -> None:
    """Raise ResultFolderError if `folder` cannot be made, or is there and shall not be replaced.

    Args:
        folder: of the result.
        is_ours: whether what it holds, if anything, is a former result. Nothing else is ever replaced.
        force: replace a former result.
    """
    if folder.exists() and not folder.is_dir():
        raise ResultFolderError(f"{folder} is a file. Choose another --out.")
    if folder.exists() and any(folder.iterdir()):
        if not is_ours:
            raise ResultFolderError(f"{folder} is there already and holds something else. Choose another --out.")
        if not force:
            raise ResultFolderError(
                f"{folder} holds the result of another retraining. Choose another --out, or replace it with --force."
            )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-"):
            pass
    except OSError as error:
        raise ResultFolderError(f"{folder} cannot be made: {error.strerror}. Choose another --out.") from None


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """Yield where to make a new folder, which on leaving takes the place of `folder`; after an error nothing changes.

    Raises:
        ResultFolderError: it cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
            new, old = Path(temporary) / "new", Path(temporary) / "old"
            yield new
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
    except OSError as error:
        raise ResultFolderError(f"{folder} cannot be written: {error.strerror}. Choose another --out.") from None
