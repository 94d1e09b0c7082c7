"""The images a search may see: the training set, in a training and a validation part. There is no test set in here.

The test set is sealed: nothing in this module opens its files, and no type in here could hold it.
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
from kmnist_search.data.resize import resized
from kmnist_search.errors import DataError


@dataclass(frozen=True, eq=False, kw_only=True)
class SearchData:
    """Images as uint8 (N, H, W), 0 = background, and labels as int64 (N,), all on one device.

    `mean` is taken from pixels as shares of 255, which are then divided by `std`. `digest` names images, split and
    normalisation: two trainings with the same digest saw the same. The validation part may be empty.
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
        """Return the same images at `size` x `size`, made where they lie."""
        if self.train_images.shape[-1] == size:
            return self
        return replace(self, train_images=resized(self.train_images, size), val_images=resized(self.val_images, size))


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainingSet:
    """All images that may be trained on or validated with: uint8 (N, H, W) and labels uint8 (N,)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]

    def split(self, config: DataConfig) -> SearchData:
        """Return the images in the two parts that `config` says.

        Raises:
            DataError: a part lacks a class.
        """
        train, val = _split(self.labels, config)
        return self._parts(train, val, config)

    def whole(self, config: DataConfig) -> SearchData:
        """Return all images as the training part, whatever split `config` says; the validation part is empty."""
        return self._parts(np.arange(len(self.labels)), np.arange(0), config)

    def samples(self, number: int) -> NDArray[np.uint8]:
        """Return the first images of each class, (classes, number, H, W)."""
        classes = np.unique(self.labels)
        return np.stack([self.images[np.flatnonzero(self.labels == label)[:number]] for label in classes])

    def _parts(self, train: NDArray[np.int64], val: NDArray[np.int64], config: DataConfig) -> SearchData:
        mean, std = _levels(self.images[train], config)
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
    """The images that the trials of a study train on: one set for all, or several, each read when first asked for."""

    def __init__(self, data_dir: Path, device: torch.device | None = None) -> None:
        """Read nothing yet; the images of `data_dir` will lie on `device`, None being the CPU."""
        self.data_dir, self.device = data_dir, device or torch.device("cpu")
        self._sets: dict[DataConfig, SearchData] = {}

    def of(self, config: DataConfig) -> SearchData:
        """Return the images that `config` names.

        Raises:
            DataError: as `load`.
        """
        if config not in self._sets:
            self._sets[config] = load(config, self.data_dir).to(self.device)
        return self._sets[config]

    @property
    def digests(self) -> dict[DataConfig, str]:
        """What was read so far, see `SearchData`."""
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
        """How many images a trial trains on at most, as far as read."""
        return max((len(data.train_images) for data in self._sets.values()), default=0)

    def to(self, device: torch.device) -> "StudyData":
        """Return the same images on `device`."""
        moved = StudyData(self.data_dir, device)
        moved._sets = {config: data.to(device) for config, data in self._sets.items()}
        return moved


def load(config: DataConfig, data_dir: Path) -> SearchData:
    """Read the training set that `config` names, and split it.

    Raises:
        DataError: the files are missing and cannot be downloaded, or are damaged; or the split leaves a class empty.
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


def _levels(images: NDArray[np.uint8], config: DataConfig) -> tuple[float, float]:
    """Return what is taken from pixels from 0 to 1, and what they are then divided by."""
    match config.normalisation:
        case "none":
            return 0.0, 1.0
        case "symmetric":
            return 0.5, 0.5
        case "standard":
            pixels = images.astype(np.float32) / 255
            return float(pixels.mean(dtype=np.float64)), float(pixels.std(dtype=np.float64))


def _split(labels: NDArray[np.uint8], config: DataConfig) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions of the training and of the validation part, drawn class by class."""
    from sklearn.model_selection import train_test_split

    val_size = round(len(labels) * config.val_share)
    if min(val_size, len(labels) - val_size) < NUM_CLASSES:
        raise DataError(
            f"[data] val_share = {config.val_share} of {len(labels):,} images leaves a part without some class"
        )
    train, val = train_test_split(
        np.arange(len(labels)), test_size=val_size, stratify=labels, random_state=config.split_seed
    )
    return train, val
