"""Tests of data/idx.py: what is read from idx files, and the message for each way they can be damaged."""

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from kmnist_search.data import idx
from kmnist_search.errors import DataError

ADVICE = "Delete the file and run again to download it, or use another --data-dir."

IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
LABELS = np.array([0, 9, 3, 3, 7], dtype=np.uint8)


def encoded(array: NDArray[np.uint8]) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def refusal(path: Path, *, dimensions: int, checksum: str = "0" * 32) -> str:
    """Return the message with which `path` is refused."""
    with pytest.raises(DataError) as caught:
        idx.read(path, dimensions=dimensions, md5=checksum)
    return str(caught.value)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("array", [IMAGES, LABELS], ids=["images", "labels"])
def test_packed_and_unpacked_files_are_read_alike(tmp_path: Path, array: NDArray[np.uint8]) -> None:
    content = encoded(array)
    plain = written(tmp_path / "some-ubyte", content)
    packed = written(tmp_path / "some-ubyte.gz", gzip.compress(content))
    for path in (plain, packed):
        read = idx.read(path, dimensions=array.ndim, md5=md5(content))
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, array)


def test_the_checksum_is_of_the_contents_and_not_of_how_they_are_packed(tmp_path: Path) -> None:
    content = encoded(IMAGES)
    for level in (1, 9):
        path = written(tmp_path / f"{level}.gz", gzip.compress(content, compresslevel=level, mtime=level))
        np.testing.assert_array_equal(idx.read(path, dimensions=3, md5=md5(content)), IMAGES)


def test_a_file_cut_short_is_refused_with_both_sizes(tmp_path: Path) -> None:
    path = written(tmp_path / "images", encoded(IMAGES)[:-5])
    assert refusal(path, dimensions=3) == (
        f"{path}: it should hold 40 bytes for its shape (2, 3, 4), but holds 35. {ADVICE}"
    )


def test_a_file_with_something_behind_its_values_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "labels", encoded(LABELS) + b"\0")
    assert refusal(path, dimensions=1) == (
        f"{path}: it should hold 13 bytes for its shape (5,), but holds 14. {ADVICE}"
    )


@pytest.mark.parametrize("length", [0, 3, 15])
def test_a_file_cut_short_within_its_header_is_refused(tmp_path: Path, length: int) -> None:
    path = written(tmp_path / "images", encoded(IMAGES)[:length])
    assert refusal(path, dimensions=3) == (f"{path}: it is cut short: {length} bytes do not hold the header. {ADVICE}")


@pytest.mark.parametrize(
    ("magic", "dimensions", "expected"),
    [
        ("00000803", 1, "00000801"),
        ("00000801", 3, "00000803"),
        ("00000d03", 3, "00000803"),
        ("3c68746d", 3, "00000803"),
    ],
    ids=["images for labels", "labels for images", "floats", "a web page"],
)
def test_a_wrong_magic_number_is_refused_with_both(tmp_path: Path, magic: str, dimensions: int, expected: str) -> None:
    path = written(tmp_path / "some", bytes.fromhex(magic) + bytes(100))
    assert refusal(path, dimensions=dimensions) == (
        f"{path}: wrong magic number: it begins with {magic}, not {expected}. {ADVICE}"
    )


def test_a_label_out_of_range_is_refused_with_its_position(tmp_path: Path) -> None:
    content = encoded(np.array([0, 9, 10, 3], dtype=np.uint8))
    path = written(tmp_path / "labels", content)
    assert refusal(path, dimensions=1, checksum=md5(content)) == (
        f"{path}: label out of range: 10 at position 2, labels are 0 to 9. {ADVICE}"
    )


def test_labels_of_no_images_at_all_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "labels", encoded(np.array([], dtype=np.uint8)))
    assert str(path) in refusal(path, dimensions=1)


def test_one_changed_pixel_is_refused_with_both_checksums(tmp_path: Path) -> None:
    changed = IMAGES.copy()
    changed[1, 1, 1] ^= 1
    path = written(tmp_path / "images", encoded(changed))
    found, published = md5(encoded(changed)), md5(encoded(IMAGES))
    assert refusal(path, dimensions=3, checksum=published) == (
        f"{path}: wrong checksum: its contents have md5 {found}, the published file has {published}. {ADVICE}"
    )


def test_a_gz_that_is_not_gzip_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "images.gz", encoded(IMAGES))
    assert refusal(path, dimensions=3) == (
        f"{path}: it is cut short or not gzip: Not a gzipped file (b'\\x00\\x00'). {ADVICE}"
    )


def test_a_truncated_gz_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "images.gz", gzip.compress(encoded(IMAGES))[:-9])
    assert refusal(path, dimensions=3) == (
        f"{path}: it is cut short or not gzip: "
        f"Compressed file ended before the end-of-stream marker was reached. {ADVICE}"
    )


def test_a_gz_with_damage_inside_is_refused(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(encoded(IMAGES)))
    packed[12] ^= 0xFF
    path = written(tmp_path / "images.gz", bytes(packed))
    message = refusal(path, dimensions=3)
    assert message.startswith(f"{path}: it is cut short or not gzip: ")
    assert message.endswith(ADVICE)


def test_a_file_that_cannot_be_read_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "images"
    path.mkdir()
    assert refusal(path, dimensions=3) == (
        f"{path}: cannot be read: Is a directory. Fix its permissions, or use --data-dir."
    )


def test_a_file_that_is_gone_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    assert refusal(path, dimensions=3) == (
        f"{path}: cannot be read: No such file or directory. Fix its permissions, or use --data-dir."
    )
