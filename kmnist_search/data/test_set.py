"""The test set, which stays sealed until a recipe is frozen.

Only the modules that `.importlinter` names may import this one.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kmnist_search.data import digits, files, idx
from kmnist_search.data.catalog import IDX_DATASETS


@dataclass(frozen=True, eq=False, kw_only=True)
class SealedSet:
    """The test images as uint8 (T, 28, 28), 0 = background, and their labels as int64 (T,), on the CPU.

    `digest` is the beginning of the SHA-256 of the bytes of the images, then of the labels, one byte each.
    """

    images: Tensor
    labels: Tensor
    digest: str


def open_test_set(dataset: str, data_dir: Path) -> SealedSet:
    """Read the test set of `dataset`; "digits" needs no `data_dir`.

    Raises:
        DataError: the files are missing and cannot be downloaded, or are damaged.
    """
    images, labels = digits.read(sealed=True) if dataset == "digits" else _idx_test_set(dataset, data_dir)
    return SealedSet(
        images=torch.from_numpy(images.copy()),  # torch warns about arrays that are read-only, as those from files are
        labels=torch.from_numpy(labels.astype(np.int64)),
        digest=hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()[:12],
    )


def _idx_test_set(name: str, data_dir: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    dataset = IDX_DATASETS[name]
    images_path, labels_path = files.test_files(dataset, data_dir)
    images = idx.read(images_path, dimensions=3, md5=dataset.test_images.md5)
    labels = idx.read(labels_path, dimensions=1, md5=dataset.test_labels.md5)
    return images, labels
