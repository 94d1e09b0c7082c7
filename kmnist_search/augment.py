"""Augment a batch on its own device. Knows nothing of models or training.

Shapes: B images, H = W pixels a side. Everything is drawn from the generator given, on the device of the images,
without reading anything back.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from kmnist_search.config import AugmentConfig

#: One random displacement a cell of this many pixels a side; smooth in between.
ELASTIC_CELL = 4


def augment(images_BHW: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Return the float images (0 = background) moved, bent and cut as `config` says; mixup is not done here."""
    if any((config.shift, config.rotate, config.scale, config.shear, config.elastic)):
        images_BHW = _warp(images_BHW, config, generator)
    if config.cutout:
        images_BHW = _cutout(images_BHW, config.cutout, generator)
    return images_BHW


def mixup(images_BHW: Tensor, alpha: float, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Blend each image with another of the batch (Zhang et al. 2018, arXiv:1710.09412).

    Returns:
        the images; `partners_B`, the position of the image blended in; `share_B`, the share of the first, drawn from
        Beta(alpha, alpha).
    """
    B = images_BHW.shape[0]
    partners_B = torch.randperm(B, generator=generator, device=images_BHW.device)
    # A beta is a ratio of two gammas; torch.distributions has no way to name a generator. In logarithms, and from
    # gammas of alpha + 1, so that a small alpha does not underflow to a ratio of one half.
    gammas_2B = torch._standard_gamma(torch.full((2, B), alpha + 1, device=images_BHW.device), generator=generator)
    uniform_2B = 1 - torch.rand((2, B), generator=generator, device=images_BHW.device)
    log_gammas_2B = gammas_2B.log() + uniform_2B.log() / alpha
    share_B = torch.sigmoid(log_gammas_2B[0] - log_gammas_2B[1])
    share_B11 = share_B[:, None, None]
    return images_BHW * share_B11 + images_BHW[partners_B] * (1 - share_B11), partners_B, share_B


def _uniform(shape: tuple[int, ...], strength: float, like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.empty(shape, device=like.device).uniform_(-strength, strength, generator=generator)


def _warp(images_BHW: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Sample each image through its own rotation, shear, scale and shift, and its own smooth displacement."""
    B, size, _ = images_BHW.shape
    angle_B, shear_B, scale_B, shift_x_B, shift_y_B = _uniform((5, B), 1.0, images_BHW, generator)
    angle_B = angle_B * math.radians(config.rotate)
    shear_B = (shear_B * math.radians(config.shear)).tan()
    scale_B = 1 + scale_B * config.scale
    cos_B, sin_B = angle_B.cos() / scale_B, angle_B.sin() / scale_B
    pixel = 2 / size  # grid coordinates run from -1 to 1
    shift_x_B, shift_y_B = shift_x_B * config.shift * pixel, shift_y_B * config.shift * pixel
    rows = (cos_B, cos_B * shear_B - sin_B, shift_x_B, sin_B, sin_B * shear_B + cos_B, shift_y_B)
    grid_BHW2 = F.affine_grid(torch.stack(rows, dim=1).view(B, 2, 3), [B, 1, size, size], align_corners=False)
    if config.elastic:
        cells = math.ceil(size / ELASTIC_CELL)
        bend_B2CC = _uniform((B, 2, cells, cells), config.elastic * pixel, images_BHW, generator)
        bend_B2HW = F.interpolate(bend_B2CC, size=(size, size), mode="bilinear", align_corners=True)
        grid_BHW2 = grid_BHW2 + bend_B2HW.permute(0, 2, 3, 1)
    return F.grid_sample(images_BHW.unsqueeze(1), grid_BHW2, align_corners=False).squeeze(1)


def _cutout(images_BHW: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Blacken a square of `side` pixels, centred anywhere in the image (DeVries & Taylor 2017, arXiv:1708.04552)."""
    B, size, _ = images_BHW.shape
    corner_2B1 = torch.randint(size, (2, B, 1), generator=generator, device=images_BHW.device) - side // 2
    pixel_S = torch.arange(size, device=images_BHW.device)
    inside_2BS = (pixel_S >= corner_2B1) & (pixel_S < corner_2B1 + side)
    return images_BHW.masked_fill(inside_2BS[0].unsqueeze(2) & inside_2BS[1].unsqueeze(1), 0.0)
