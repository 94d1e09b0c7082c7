"""The images of a bench: KMNIST if it is on this machine, otherwise noise. Nothing is downloaded."""

from dataclasses import dataclass
from pathlib import Path

import torch

from kmnist_search.bench.nets import EPOCH_IMAGES
from kmnist_search.config import NUM_CLASSES, DataConfig
from kmnist_search.data import files
from kmnist_search.data.catalog import IDX_DATASETS
from kmnist_search.data.search_data import SearchData, load_training_set


@dataclass(frozen=True, eq=False, kw_only=True)
class BenchImages:
    """All images as the training part; `source` is "kmnist" or "noise"."""

    data: SearchData
    source: str


def images_in(data_dir: Path) -> BenchImages:
    """Return KMNIST's training images if `data_dir` has them, otherwise as many of noise.

    They are uint8 (N, 28, 28), with int64 labels (N,).

    Raises:
        DataError: the files are there, but damaged.
    """
    if files.found_training_files(IDX_DATASETS["kmnist"], data_dir):
        return BenchImages(data=load_training_set("kmnist", data_dir).whole(DataConfig()), source="kmnist")
    generator = torch.Generator().manual_seed(0)
    images_NHW = torch.randint(0, 256, (EPOCH_IMAGES, 28, 28), dtype=torch.uint8, generator=generator)
    labels_N = torch.randint(0, NUM_CLASSES, (EPOCH_IMAGES,), generator=generator)
    data = SearchData(
        train_images=images_NHW,
        train_labels=labels_N,
        val_images=images_NHW[:0],
        val_labels=labels_N[:0],
        mean=0.5,
        std=(1 / 12) ** 0.5,  # of the uniform distribution from 0 to 1
        digest="noise",
    )
    return BenchImages(data=data, source="noise")
