"""Patches, and the random draws of a forward pass, which all nets share.

Shapes: B images of a batch, H = W pixels a side, N patches of P pixels, K blocks.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class Noise:
    """What one forward pass in training draws. It is drawn before the pass, so that the pass can be compiled.

    Attributes:
        masks: of the dropout layers, in the order of the layers; empty without dropout.
        factors_K2B: drop-path factors, see `patch_mlp.drop_path_factors`; None without drop path.
    """

    masks: list[Tensor] = field(default_factory=list)
    factors_K2B: Tensor | None = None


def patches(images_BHW: Tensor, patch_size: int) -> Tensor:
    """Cut (B, H, W) images into (N, B, P) patches, rows of patches first, pixels in reading order."""
    B, H, W = images_BHW.shape
    p = patch_size
    return images_BHW.reshape(B, H // p, p, W // p, p).permute(1, 3, 0, 2, 4).reshape(-1, B, p * p)


def dropout_masks(
    shapes: Iterable[tuple[tuple[int, ...], float]],
    dtype: torch.dtype,
    device: torch.device,
    generator: torch.Generator | None,
) -> list[Tensor]:
    """Draw a mask of each shape: 0 with the probability beside it, else 1 / (1 - probability).

    `torch.nn.Dropout` draws from torch's global generator. These are drawn from the training's own, so that trainings
    in one process do not affect each other and a resumed training draws the same masks. None is torch's global one.
    """
    masks = []
    for shape, probability in shapes:
        keep = torch.empty(shape, device=device, dtype=dtype).bernoulli_(1 - probability, generator=generator)
        masks.append(keep.div_(1 - probability))
    return masks
