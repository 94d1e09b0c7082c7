"""The numbers of images that are trained on and held out for validation."""

from typing import NamedTuple


class PartSizes(NamedTuple):
    """The images of the training part and of the validation part."""

    train: int
    val: int


def part_sizes(images: int, val_share: float) -> PartSizes:
    """Return how many of so many images are trained on, and how many are held out."""
    val = round(images * val_share)
    return PartSizes(train=images - val, val=val)
