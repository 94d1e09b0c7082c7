"""Finds the files of a data set in the data folder, or downloads them."""

import http.client
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from kmnist_search.data.catalog import IdxDataset, IdxFile
from kmnist_search.errors import DataError

#: Without a timeout, a firewall that drops packets would keep the user waiting for minutes.
CONNECT_TIMEOUT_SECONDS = 30.0
DOWNLOAD_PREFIX = ".download-"

#: The files of the images and of the labels of one part of a data set.
Pair = tuple[IdxFile, IdxFile]


def default_data_dir() -> Path:
    """Return the user's cache folder for this package."""
    from platformdirs import user_cache_path

    return user_cache_path("kmnist-search")


def training_files(dataset: IdxDataset, data_dir: Path) -> tuple[Path, Path]:
    """Return the paths of the training images and labels. Downloads the data set if they are missing.

    Raises:
        DataError: they are missing and cannot be downloaded.
    """
    return _found_or_downloaded(dataset, (dataset.train_images, dataset.train_labels), data_dir)


def test_files(dataset: IdxDataset, data_dir: Path) -> tuple[Path, Path]:
    """Return the paths of the test images and labels. Downloads the data set if they are missing.

    Raises:
        DataError: they are missing and cannot be downloaded.
    """
    return _found_or_downloaded(dataset, (dataset.test_images, dataset.test_labels), data_dir)


def found_training_files(dataset: IdxDataset, data_dir: Path) -> tuple[Path, Path] | None:
    """Return the paths of the training images and labels, None if they are missing. Downloads nothing."""
    return _find(dataset, (dataset.train_images, dataset.train_labels), data_dir)


def raw_folder(dataset: IdxDataset, data_dir: Path) -> Path:
    return data_dir / dataset.folder / "raw"


def _found_or_downloaded(dataset: IdxDataset, wanted: Pair, data_dir: Path) -> tuple[Path, Path]:
    try:
        found = _find(dataset, wanted, data_dir)
        if found is None:
            _check_not_too_deep(dataset, wanted, data_dir)
            found = _download(dataset, wanted, data_dir)
    except (OSError, RuntimeError, EOFError, http.client.HTTPException) as error:
        raise _missing(dataset, wanted, data_dir, str(error)) from None
    if found is None:
        raise _missing(dataset, wanted, data_dir, "the download did not contain them")
    return found


def _check_not_too_deep(dataset: IdxDataset, wanted: Pair, data_dir: Path) -> None:
    """Raise DataError if the data folder is the folder of the data set itself, or the one within it."""
    folder = data_dir.resolve()
    for parent in (folder.parent, folder.parent.parent):
        if folder.is_relative_to(parent / dataset.folder) and _find(dataset, wanted, parent):
            raise DataError(f"{dataset.title} is in {folder}: name the folder above, --data-dir {parent}")


def _find(dataset: IdxDataset, wanted: Pair, data_dir: Path) -> tuple[Path, Path] | None:
    def path_of(file: IdxFile) -> Path | None:
        plain = raw_folder(dataset, data_dir) / file.name
        packed = plain.with_name(f"{plain.name}.gz")
        return next((path for path in (plain, packed) if path.is_file()), None)

    images, labels = (path_of(file) for file in wanted)
    return (images, labels) if images and labels else None


def _download(dataset: IdxDataset, wanted: Pair, data_dir: Path) -> tuple[Path, Path] | None:
    """Download all files with torchvision, which checks them, into a temporary folder; then move them into place.

    Existing files stay as they are.
    """
    import torchvision

    made = not data_dir.exists()
    data_dir.mkdir(parents=True, exist_ok=True)
    lock = data_dir / f".{dataset.folder}.lock"
    with FileLock(lock), _removed_on_failure(lock, made):
        if found := _find(dataset, wanted, data_dir):  # another process has downloaded it
            return found
        prefix = f"{DOWNLOAD_PREFIX}{dataset.folder}-"
        for abandoned in data_dir.glob(f"{prefix}*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=data_dir, prefix=prefix) as temporary, _timeout():
            getattr(torchvision.datasets, dataset.folder)(temporary, download=True)
            target = raw_folder(dataset, data_dir)
            target.mkdir(parents=True, exist_ok=True)
            for packed in raw_folder(dataset, Path(temporary)).glob("*.gz"):
                if not (target / packed.name).exists():
                    packed.replace(target / packed.name)
        return _find(dataset, wanted, data_dir)


@contextmanager
def _removed_on_failure(lock: Path, folder_made: bool) -> Iterator[None]:
    """After a failed download remove the lock, and the data folder if it was made for the download."""
    try:
        yield
    except BaseException:
        lock.unlink(missing_ok=True)
        if folder_made:
            with suppress(OSError):  # it holds files by now
                lock.parent.rmdir()
        raise


@contextmanager
def _timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(CONNECT_TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _missing(dataset: IdxDataset, wanted: Pair, data_dir: Path, reason: str) -> DataError:
    names = "\n".join(f"  {file.name}" for file in wanted)
    return DataError(
        f"{dataset.title} is not in {raw_folder(dataset, data_dir)} and could not be downloaded:\n"
        f"  {' '.join(reason.split())}\n"
        f"Files needed there, unpacked or as .gz:\n{names}\n"
        f"Put them there, or point --data-dir (KMNIST_SEARCH_DATA) at a folder that has {dataset.folder}/raw.\n"
        f"To try a search without a download: kmnist-search run quickstart"
    )
