"""The learning rate as a pure function of the step and of the losses so far."""

import math
from collections.abc import Sequence

from kmnist_search.config import ScheduleConfig

#: The share of a training in which the schedule "wsd" decays, as Hägele et al. 2024 (arXiv:2405.18392) have it.
WSD_DECAY_SHARE = 0.2


def lr_at(
    step: int,
    config: ScheduleConfig,
    *,
    peak: float,
    total_steps: int,
    steps_per_epoch: int,
    losses: Sequence[float],
) -> float:
    """Return the learning rate of `step` (from 0).

    Args:
        step: the step about to be taken.
        config: which schedule.
        peak: the rate at the end of the warm-up.
        total_steps: steps of the whole training.
        steps_per_epoch: steps of one epoch.
        losses: of the ended epochs, oldest first; only the plateau schedule reads them.
    """
    warmup_steps = round(config.warmup_share * total_steps)
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    match config.schedule:
        case "cosine":
            done = (step - warmup_steps) / (total_steps - warmup_steps)
            return peak * 0.5 * (1 + math.cos(math.pi * done))
        case "wsd":
            decay_steps = max(round(WSD_DECAY_SHARE * total_steps), 1)
            return peak * min((total_steps - step) / decay_steps, 1.0)
        case "step":
            return peak * config.decay_factor ** (step // steps_per_epoch // config.step_epochs)
        case "plateau":
            return peak * config.decay_factor ** plateaus(
                losses, patience=config.plateau_patience, threshold=config.plateau_threshold
            )
        case "constant":
            return peak


def plateaus(losses: Sequence[float], *, patience: int, threshold: float) -> int:
    """Return the number of plateaus in `losses`: more than `patience` epochs in a row without a new best.

    A new best is lower than the old by the share `threshold`, as in torch's `ReduceLROnPlateau` (mode "min").
    """
    best, waiting, count = math.inf, 0, 0
    for loss in losses:
        if loss < best * (1 - threshold):
            best, waiting = loss, 0
        else:
            waiting += 1
        if waiting > patience:
            count, waiting = count + 1, 0
    return count
