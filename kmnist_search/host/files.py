"""Files and folders that are written whole or not at all, and checks of whether they can be written."""

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kmnist_search.errors import ConfigError, InputError, ResultFolderError


@contextmanager
def whole_file(path: Path, *, error: type[InputError] | None = None) -> Iterator[Path]:
    """Yield a new, empty file beside `path`. On leaving it replaces `path`; after an error `path` is as it was.

    The content is on the disk before the file gets its name, so a power failure leaves no half of it.

    Args:
        path: the file to write; its folder must be there.
        error: raised instead of an OSError, with a message that names the file.
    """
    part = path.parent / f"{_part_prefix(path)}{secrets.token_hex(4)}"
    with _reported(path, error):
        try:
            part.touch()
            yield part
            _sync(part)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path, *, replace: bool = False, error: type[InputError] | None = None) -> Iterator[Path]:
    """Yield a new, empty folder beside `folder`. On leaving it becomes `folder`; after an error nothing changes.

    The folders above are made. Its files are on the disk before it gets its name.

    Args:
        folder: the folder to write.
        replace: replace what is there; otherwise `folder` must be empty or not there.
        error: raised instead of an OSError, with a message that names the folder.
    """
    with _reported(folder, error):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=_part_prefix(folder)) as temporary:
            new, old = Path(temporary) / "new", Path(temporary) / "old"
            new.mkdir()
            yield new
            for path in new.rglob("*"):
                if path.is_file():
                    _sync(path)
            if replace and folder.exists():
                folder.rename(old)
            new.rename(folder)


def discard(path: Path) -> None:
    """Remove a file, if it is there, and the unfinished parts of it that killed processes left."""
    for file in (path, *path.parent.glob(f"{_part_prefix(path)}*")):
        file.unlink(missing_ok=True)


def check_writable(folder: Path, *, option: str = "--checkpoints") -> None:
    """Make a folder unless it is there, and try to write a file in it.

    Args:
        folder: the folder.
        option: the option that names it, for the message.

    Raises:
        ConfigError: no file can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        raise ConfigError(
            f"{option} {folder}: no file can be written there: {error.strerror}. "
            "Name another folder, or fix its permissions."
        ) from None


def check_result_folder(folder: Path, *, is_ours: bool, force: bool) -> None:
    """Raise InputError if a result cannot be written to `folder`.

    Args:
        folder: of the result.
        is_ours: whether what it holds, if anything, is a former result. Nothing else is ever replaced.
        force: replace a former result.
    """
    if folder.exists() and not folder.is_dir():
        raise ResultFolderError(f"{folder} is a file. Choose another --out.")
    if folder.exists() and any(folder.iterdir()):
        if not is_ours:
            raise ResultFolderError(f"{folder} exists and holds something else. Choose another --out.")
        if not force:
            raise ResultFolderError(
                f"{folder} holds the result of another retraining. Choose another --out, or replace it with --force."
            )
    check_writable(folder.parent, option="--out")


@contextmanager
def _reported(path: Path, error: type[InputError] | None) -> Iterator[None]:
    """Turn an OSError into `error`, if there is one."""
    try:
        yield
    except OSError as problem:
        if error is None:
            raise
        raise error(f"{path}: cannot be written: {problem.strerror}.") from None


def _part_prefix(path: Path) -> str:
    return f".{path.name}-"


def _sync(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
