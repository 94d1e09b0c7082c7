"""Tests of data/test_set.py: the only access to the test set."""

import gzip
import shutil
from pathlib import Path

import pytest
import torch
import torchvision

from kmnist_search.config import DataConfig
from kmnist_search.data import files, search_data
from kmnist_search.data.catalog import IDX_DATASETS
from kmnist_search.data.test_set import open_test_set
from kmnist_search.errors import DataError
from tests.unit.data.test_data import ALL_FILES, TRAINING_FILES, download_server, left_in, published

KMNIST = IDX_DATASETS["kmnist"]
TEST_FILES = tuple(name for name in ALL_FILES if name not in TRAINING_FILES)


def test_the_test_set_of_kmnist_is_10000_images_alike_in_every_class(real_data_dir: Path) -> None:
    sealed = open_test_set("kmnist", real_data_dir)
    assert (sealed.images.shape, sealed.images.dtype) == ((10_000, 28, 28), torch.uint8)
    assert (sealed.labels.shape, sealed.labels.dtype) == ((10_000,), torch.int64)
    assert torch.bincount(sealed.labels).tolist() == [1000] * 10
    assert len(sealed.digest) == 12


def test_the_two_test_files_alone_are_enough_packed_or_not(tmp_path: Path, real_data_dir: Path) -> None:
    raw = tmp_path / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    for name in TEST_FILES:
        (raw / name).write_bytes(gzip.decompress((real_data_dir / "KMNIST" / "raw" / f"{name}.gz").read_bytes()))
    assert open_test_set("kmnist", tmp_path).digest == open_test_set("kmnist", real_data_dir).digest
    assert left_in(tmp_path) == ["KMNIST", "KMNIST/raw", *(f"KMNIST/raw/{name}" for name in sorted(TEST_FILES))]


def test_a_damaged_test_file_is_refused(tmp_path: Path, real_data_dir: Path) -> None:
    raw = tmp_path / "KMNIST" / "raw"
    shutil.copytree(real_data_dir / "KMNIST" / "raw", raw)
    content = bytearray(gzip.decompress((raw / f"{TEST_FILES[0]}.gz").read_bytes()))
    content[-1] ^= 1
    (raw / TEST_FILES[0]).write_bytes(content)
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte: wrong checksum"):
        open_test_set("kmnist", tmp_path)


def test_missing_test_files_are_downloaded_and_the_training_files_stay_as_they_are(
    tmp_path: Path, real_data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    for name in TRAINING_FILES:
        (raw / f"{name}.gz").write_bytes(b"mine")
    with download_server(real_data_dir / "KMNIST" / "raw") as server:
        monkeypatch.setattr(torchvision.datasets.KMNIST, "mirrors", [server.url])
        assert files.test_files(KMNIST, tmp_path) == tuple(raw / f"{name}.gz" for name in TEST_FILES)
    assert left_in(tmp_path) == published(tmp_path)
    assert {(raw / f"{name}.gz").read_bytes() for name in TRAINING_FILES} == {b"mine"}


def test_no_digit_is_in_both_the_test_set_and_what_a_search_sees() -> None:
    sealed = open_test_set("digits", Path())
    seen = search_data.load(DataConfig(dataset="digits"), Path())
    assert len(sealed.images) == len(sealed.labels) == 360
    assert len(sealed.images) + len(seen.train_images) + len(seen.val_images) == 1797
    shown = {image.numpy().tobytes() for image in torch.cat((seen.train_images, seen.val_images))}
    assert not shown & {image.numpy().tobytes() for image in sealed.images}
