"""The images that are measured with: KMNIST if it is here, else noise. Downloads nothing."""

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
    """All images as the training part, and whether they are "kmnist" or "noise"."""

    data: SearchData
    source: str


def images_in(data_dir: Path, *, noise_images: int = EPOCH_IMAGES) -> BenchImages:
    """Return KMNIST's training images if `data_dir` has them, else as many of noise, of the same shape and type.

    Raises:
        DataError: the files are there, and damaged.
    """
    if files.found_training_files(IDX_DATASETS["kmnist"], data_dir):
        return BenchImages(data=load_training_set("kmnist", data_dir).whole(DataConfig()), source="kmnist")
    generator = torch.Generator().manual_seed(0)
    images_NHW = torch.randint(0, 256, (noise_images, 28, 28), dtype=torch.uint8, generator=generator)
    labels_N = torch.randint(0, NUM_CLASSES, (noise_images,), generator=generator)
    data = SearchData(
        train_images=images_NHW,
        train_labels=labels_N,
        val_images=images_NHW[:0],
        val_labels=labels_N[:0],
        mean=0.5,
        std=(1 / 12) ** 0.5,  # of numbers that are spread evenly from 0 to 1
        digest="noise",
    )
    return BenchImages(data=data, source="noise")
