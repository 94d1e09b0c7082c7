"""The digits of scikit-learn as 28x28 images, split into a training set and a sealed test set."""

import numpy as np
import torch
from numpy.typing import NDArray

from kmnist_search.data.resize import interpolated

SEALED_SHARE = 0.2


def read(*, sealed: bool) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return images and labels of one part of the 1,797 scans, scaled from 8x8 pixels of 17 greys to 28x28 of 256."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    scans, labels = load_digits(return_X_y=True)
    open_scans, sealed_scans, open_labels, sealed_labels = train_test_split(
        scans, labels, test_size=SEALED_SHARE, stratify=labels, random_state=0
    )
    scans, labels = (sealed_scans, sealed_labels) if sealed else (open_scans, open_labels)
    images = torch.from_numpy(np.round(scans.reshape(-1, 8, 8) / 16 * 255).astype(np.uint8))
    return interpolated(images, 28).round_().clamp_(0, 255).to(torch.uint8).numpy(), labels.astype(np.uint8)
