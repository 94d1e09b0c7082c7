"""The nets, the images and the trial that a bench measures."""

from collections.abc import Mapping

import torch

from kmnist_search.config import NUM_CLASSES, TrainConfig, TrialConfig, trial_config
from kmnist_search.data.search_data import SearchData

#: Images of an epoch, when an epoch is timed: KMNIST's whole training set.
EPOCH_IMAGES = 60_000
#: A whole trial, about as long as one of the study "kmnist" that is not pruned.
TRIAL_EPOCHS, TRIAL_IMAGES, TRIAL_VAL_IMAGES = 30, 50_000, 10_000
#: A training step computes the products of the forward pass three times: forward, and for each of two gradients.
STEP_COST = 3

_RECIPE = {"learning_rate": 1e-3, "shift": 2.0, "label_smoothing": 0.1}


def _net(patch_size: int, dim: int, token_width: int, channel_width: int, num_blocks: int, batch: int) -> TrialConfig:
    shape = {"patch_size": patch_size, "dim": dim, "token_width": token_width, "channel_width": channel_width}
    # More epochs than any measurement takes, so that no training ends during one.
    epochs = TrainConfig(epochs=100_000)
    return trial_config({**_RECIPE, **shape, "num_blocks": num_blocks, "batch_size": batch}, epochs)


TINY = _net(7, 64, 32, 128, 2, 128)
SMALL = _net(7, 128, 64, 128, 2, 128)
REFERENCE = _net(4, 256, 128, 512, 4, 256)
LARGE = _net(4, 512, 256, 1024, 10, 256)

#: Trained first, and unlike the others: no set-up then includes what a process does only once.
WARM_UP = _net(14, 8, 4, 8, 1, 16)


def nets_for(device_type: str) -> Mapping[str, TrialConfig]:
    """Return the nets to measure, by name. A CPU has a tiny net instead of the large one, which would take hours."""
    if device_type == "cuda":
        return {"small": SMALL, "reference": REFERENCE, "large": LARGE}
    return {"tiny": TINY, "small": SMALL, "reference": REFERENCE}


def noise() -> SearchData:
    """Return as many images of noise as KMNIST has for training; what they show does not change the pace.

    They are uint8 (N, 28, 28), with int64 labels (N,).
    """
    generator = torch.Generator().manual_seed(0)
    images_NHW = torch.randint(0, 256, (EPOCH_IMAGES, 28, 28), dtype=torch.uint8, generator=generator)
    labels_N = torch.randint(0, NUM_CLASSES, (EPOCH_IMAGES,), generator=generator)
    return SearchData(
        train_images=images_NHW,
        train_labels=labels_N,
        val_images=images_NHW[:0],
        val_labels=labels_N[:0],
        mean=0.5,
        std=(1 / 12) ** 0.5,  # of the uniform distribution from 0 to 1
        digest="noise",
    )


def shape_text(config: TrialConfig) -> str:
    """Return a net in a few characters: patch, features, token and channel width, blocks, batch."""
    net = config.patch_mlp
    widths = f"{net.token_width}/{net.channel_width}"
    return f"p{net.patch_size} D{net.dim} {widths} k{net.num_blocks}, batch {config.batch.batch_size}"


def trials_per_hour(images_per_second: float, setup_seconds: float, trials: int = 1) -> float:
    """Return how many whole trials an hour a machine completes.

    An image that is only validated costs a third of one that is trained on.

    Args:
        images_per_second: images that all trials together train on in a second.
        setup_seconds: set-up of one trial.
        trials: trials at once.
    """
    images = TRIAL_EPOCHS * (TRIAL_IMAGES + TRIAL_VAL_IMAGES / STEP_COST)
    return 3600 * trials / (setup_seconds + images * trials / images_per_second)
