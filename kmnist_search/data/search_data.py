"""The images that a search may see: the training set, split into a training and a validation part.

The test set is sealed: nothing in this module opens its files, and no type in it could hold it.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kmnist_search.config import NUM_CLASSES, DataConfig
from kmnist_search.data import digits, files, idx
from kmnist_search.data.catalog import IDX_DATASETS
from kmnist_search.data.part_sizes import part_sizes
from kmnist_search.data.resize import resized
from kmnist_search.errors import DataError


@dataclass(frozen=True, eq=False, kw_only=True)
class SearchData:
    """Images as uint8 (N, H, W), 0 = background, and labels as int64 (N,), all on one device.

    `mean` and `std` normalise pixels as shares of 255. `digest` identifies images, split and normalisation: trainings
    with the same digest see the same data. The validation part may be empty.
    """

    train_images: Tensor
    train_labels: Tensor
    val_images: Tensor
    val_labels: Tensor
    mean: float
    std: float
    digest: str

    def to(self, device: torch.device) -> "SearchData":
        """Return the same images on `device`."""
        return replace(
            self,
            train_images=self.train_images.to(device),
            train_labels=self.train_labels.to(device),
            val_images=self.val_images.to(device),
            val_labels=self.val_labels.to(device),
        )

    def resized(self, size: int) -> "SearchData":
        """Return the same images at `size` x `size`, on the same device."""
        if self.train_images.shape[-1] == size:
            return self
        return replace(self, train_images=resized(self.train_images, size), val_images=resized(self.val_images, size))


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainingSet:
    """All images for training and validation, uint8 (N, H, W), and their labels, uint8 (N,)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]

    def split(self, config: DataConfig) -> SearchData:
        """Return the images, split as `config` says.

        Raises:
            DataError: a part lacks a class.
        """
        train, val = _split(self.labels, config)
        return self._parts(train, val, config)

    def samples(self, number: int) -> NDArray[np.uint8]:
        """Return the first images of each class, (classes, number, H, W)."""
        classes = np.unique(self.labels)
        return np.stack([self.images[np.flatnonzero(self.labels == label)[:number]] for label in classes])

    def _parts(self, train: NDArray[np.int64], val: NDArray[np.int64], config: DataConfig) -> SearchData:
        mean, std = _mean_and_std(self.images[train], config)
        digest = hashlib.sha256(self.images.tobytes() + self.labels.tobytes() + np.sort(val).astype(np.int64).tobytes())
        if config.normalisation != "standard":
            digest.update(config.normalisation.encode())
        return SearchData(
            train_images=torch.from_numpy(self.images[train]),
            train_labels=torch.from_numpy(self.labels[train].astype(np.int64)),
            val_images=torch.from_numpy(self.images[val]),
            val_labels=torch.from_numpy(self.labels[val].astype(np.int64)),
            mean=mean,
            std=std,
            digest=digest.hexdigest()[:12],
        )


class StudyData:
    """The images that the trials of a study train on: one data set or several, each read at its first use."""

    def __init__(self, data_dir: Path, device: torch.device | None = None) -> None:
        """Read nothing yet. The images of `data_dir` will be on `device`; None is the CPU."""
        self.data_dir, self.device = data_dir, device or torch.device("cpu")
        self._whole: dict[str, TrainingSet] = {}
        self._sets: dict[DataConfig, SearchData] = {}

    def of(self, config: DataConfig) -> SearchData:
        """Return the images that `config` names.

        Raises:
            DataError: see `load`.
        """
        if config not in self._sets:
            if config.dataset not in self._whole:
                self._whole[config.dataset] = load_training_set(config.dataset, self.data_dir)
            self._sets[config] = self._whole[config.dataset].split(config).to(self.device)
        return self._sets[config]

    @property
    def digests(self) -> dict[DataConfig, str]:
        """The digests of the data read so far, see `SearchData`."""
        return {config: data.digest for config, data in self._sets.items()}

    @property
    def datasets(self) -> str:
        """The names of the data sets read so far."""
        return ", ".join(dict.fromkeys(config.dataset for config in self._sets))

    @property
    def digest_text(self) -> str:
        """The names of the data sets read so far, with their digests."""
        known = [f"{config.dataset}, data digest {data.digest}" for config, data in self._sets.items()]
        return ", ".join(known) or "no images to read"

    @property
    def train_images(self) -> int:
        """The most images that a trial trains on, of the data read so far."""
        return max((len(data.train_images) for data in self._sets.values()), default=0)

    def to(self, device: torch.device) -> "StudyData":
        """Return the same images on `device`."""
        moved = StudyData(self.data_dir, device)
        moved._whole = self._whole
        moved._sets = {config: data.to(device) for config, data in self._sets.items()}
        return moved


def load(config: DataConfig, data_dir: Path) -> SearchData:
    """Read the training set that `config` names, and split it.

    Raises:
        DataError: the files are missing and cannot be downloaded, or are damaged; or a part of the split lacks a class.
    """
    return load_training_set(config.dataset, data_dir).split(config)


def load_training_set(dataset: str, data_dir: Path) -> TrainingSet:
    """Read the training set called `dataset`.

    Raises:
        DataError: the files are missing and cannot be downloaded, or are damaged.
    """
    in_files = dataset != "digits"
    images, labels = _idx_training_set(dataset, data_dir) if in_files else digits.read(sealed=False)
    return TrainingSet(images=images, labels=labels)


def _idx_training_set(name: str, data_dir: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    dataset = IDX_DATASETS[name]
    images_path, labels_path = files.training_files(dataset, data_dir)
    images = idx.read(images_path, dimensions=3, md5=dataset.train_images.md5)
    labels = idx.read(labels_path, dimensions=1, md5=dataset.train_labels.md5)
    return images, labels


def _mean_and_std(images: NDArray[np.uint8], config: DataConfig) -> tuple[float, float]:
    """Return the mean and the standard deviation that normalise pixels from 0 to 1."""
    match config.normalisation:
        case "none":
            return 0.0, 1.0
        case "symmetric":
            return 0.5, 0.5
        case "standard":
            counts, shares = np.bincount(images.reshape(-1), minlength=256), np.arange(256) / 255
            mean = np.average(shares, weights=counts)
            return float(mean), float(np.sqrt(np.average((shares - mean) ** 2, weights=counts)))


def _split(labels: NDArray[np.uint8], config: DataConfig) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions of the training and of the validation part, drawn class by class."""
    from sklearn.model_selection import train_test_split

    if config.val_share == 0:
        return np.arange(len(labels)), np.arange(0)

    sizes = part_sizes(len(labels), config.val_share)
    if min(sizes) < NUM_CLASSES:
        raise DataError(
            f"[data] val_share = {config.val_share} of {len(labels):,} images leaves a part without some class"
        )
    train, val = train_test_split(
        np.arange(len(labels)), test_size=sizes.val, stratify=labels, random_state=config.split_seed
    )
    return train, val
