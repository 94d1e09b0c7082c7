"""Images of noise with random labels, to run a program's steps without a data set."""

import torch

from kmnist_search.config import NUM_CLASSES
from kmnist_search.data.search_data import SearchData


def noise_data(train_images: int, val_images: int, device: torch.device) -> SearchData:
    """Return as many images of 28x28 pixels, the same ones at every call."""
    generator = torch.Generator().manual_seed(0)
    train, val = (
        torch.randint(0, 256, (number, 28, 28), dtype=torch.uint8, generator=generator)
        for number in (train_images, val_images)
    )
    train_labels, val_labels = (
        torch.randint(0, NUM_CLASSES, (len(part),), generator=generator) for part in (train, val)
    )
    return SearchData(
        train_images=train,
        train_labels=train_labels,
        val_images=val,
        val_labels=val_labels,
        mean=0.5,
        std=0.3,
        digest="noise",
    ).to(device)
