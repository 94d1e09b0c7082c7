"""The attributes of a trial besides its metric: configuration, seconds, device, traceback."""

from typing import Any

import torch

from kmnist_search.config import TrialConfig, cost
from kmnist_search.engine.device import device_title, is_out_of_memory
from kmnist_search.engine.training import Training
from kmnist_search.host.environment import versions
from kmnist_search.study.ranking import DIGEST_KEY
from kmnist_search.study.trial_rows import CURVE_SUFFIX, CURVES

#: Begins the reason of a trial that ended because a loss was no longer finite.
DIVERGED = "diverged: "


def description(config: TrialConfig, data_digest: str, seed: int, device: torch.device) -> dict[str, Any]:
    """Return everything that determines the result of a training."""
    return {
        "config": config.model_dump(mode="json"),
        DIGEST_KEY: config.digest,
        "data_digest": data_digest,
        "num_parameters": cost.num_parameters(config.model),
        "flops_per_image": cost.flops_per_image(config.model),
        "seed": seed,
        "device": device_title(device),
        "versions": versions(),
    }


def results(training: Training) -> dict[str, Any]:
    """Return the curves so far, the seconds, and the speed in images per second."""
    seconds = training.seconds_so_far
    return {
        **{f"{curve}{CURVE_SUFFIX}": [getattr(epoch, curve) for epoch in training.history] for curve in CURVES},
        "seconds": seconds,
        "images_per_second": training.images_trained / seconds if seconds else None,
    }


def reason_of_failure(error: Exception) -> str:
    """Return an error as a reason, marked if memory ran out."""
    return f"{'out of memory: ' if is_out_of_memory(error) else ''}{type(error).__name__}: {error}"
