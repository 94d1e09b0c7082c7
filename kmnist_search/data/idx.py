"""Reader of the idx files of the MNIST family, plain or gzipped, which checks what it reads.

The format: two zero bytes, the type (8: unsigned byte), the number of dimensions, each dimension as a big-endian
32-bit integer, then the values.
"""

import gzip
import hashlib
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kmnist_search.errors import DataError

UNSIGNED_BYTE = 8


def read(path: Path, *, dimensions: int, md5: str) -> NDArray[np.uint8]:
    """Return the array in `path`, a plain idx file or one that ends in `.gz`.

    Args:
        path: the file.
        dimensions: 3 for images (N, H, W), 1 for labels (N,).
        md5: checksum of the unpacked bytes.

    Raises:
        DataError: it cannot be read or unpacked, is truncated, is not such an idx file, or has another checksum.
    """
    content = _unpacked(path)
    shape = _shape(path, content, dimensions)
    start = 4 + 4 * dimensions
    wanted = start + math.prod(shape)
    if len(content) != wanted:
        raise _broken(path, f"it should hold {wanted:,} bytes for its shape {shape}, but holds {len(content):,}")
    array = np.frombuffer(content, np.uint8, offset=start).reshape(shape)
    if dimensions == 1 and array.size and array.max() > 9:
        raise _broken(path, f"label out of range: {array.max()} at position {array.argmax():,}, labels are 0 to 9")
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise _broken(path, f"wrong checksum: its contents have md5 {found}, the published file has {md5}")
    return array


def _unpacked(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}. Fix its permissions, or use --data-dir.") from None
    if path.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise _broken(path, f"it is cut short or not gzip: {error}") from None


def _shape(path: Path, content: bytes, dimensions: int) -> tuple[int, ...]:
    if len(content) < 4 + 4 * dimensions:
        raise _broken(path, f"it is cut short: {len(content)} bytes do not hold the header")
    expected = bytes((0, 0, UNSIGNED_BYTE, dimensions))
    if content[:4] != expected:
        raise _broken(path, f"wrong magic number: it begins with {content[:4].hex()}, not {expected.hex()}")
    return struct.unpack_from(f">{dimensions}I", content, 4)


def _broken(path: Path, problem: str) -> DataError:
    return DataError(f"{path}: {problem}. Delete the file and run again to download it, or use another --data-dir.")
