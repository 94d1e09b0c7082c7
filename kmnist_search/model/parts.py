"""What nets are made of besides torch's own layers. Knows no net.

Shapes: B images of a batch, H = W pixels a side, N patches of P pixels.
"""

import torch
from torch import Tensor


def patches(images_BHW: Tensor, patch_size: int) -> Tensor:
    """Cut (B, H, W) images into (N, B, P) patches, rows of patches first, pixels in reading order."""
    B, H, W = images_BHW.shape
    p = patch_size
    return images_BHW.reshape(B, H // p, p, W // p, p).permute(1, 3, 0, 2, 4).reshape(-1, B, p * p)


def dropout(x: Tensor, probability: float, generator: torch.Generator | None, shape: tuple[int, ...]) -> Tensor:
    """Zero `x` where a mask of `shape` (which broadcasts against `x`) says so, and scale up what is left.

    `torch.nn.Dropout` draws from the process's one generator; this draws from the training's own, so that trainings
    beside each other do not disturb one another and a resumed one draws what it would have drawn.
    """
    return x * dropout_mask(shape, probability, x.dtype, x.device, generator)


def dropout_mask(
    shape: tuple[int, ...],
    probability: float,
    dtype: torch.dtype,
    device: torch.device,
    generator: torch.Generator | None,
) -> Tensor:
    """Draw what `dropout` multiplies by: 0, or as much more as is dropped."""
    keep = torch.empty(shape, device=device, dtype=dtype).bernoulli_(1 - probability, generator=generator)
    return keep.div_(1 - probability)
