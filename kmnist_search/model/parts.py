"""Patches and dropout, which all nets share.

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
    """Apply dropout to `x` with a mask of `shape`, which broadcasts against `x`.

    `torch.nn.Dropout` draws from torch's global generator. This draws from the training's own, so that trainings in one
    process do not affect each other and a resumed training draws the same masks.
    """
    return x * dropout_mask(shape, probability, x.dtype, x.device, generator)


def dropout_mask(
    shape: tuple[int, ...],
    probability: float,
    dtype: torch.dtype,
    device: torch.device,
    generator: torch.Generator | None,
) -> Tensor:
    """Draw the mask of `dropout`: 0 with `probability`, else 1 / (1 - probability)."""
    keep = torch.empty(shape, device=device, dtype=dtype).bernoulli_(1 - probability, generator=generator)
    return keep.div_(1 - probability)
