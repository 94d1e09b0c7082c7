"""Augmentation of a batch of images on its own device: affine and elastic transformation, cutout, mixup.

Shapes: B images, H = W pixels a side. The given generator draws everything on the device of the images;
nothing is read back. Drawing and applying are separate functions, because the Triton kernels apply the same draws.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from kmnist_search.config import AugmentConfig

#: Pixels a side of an elastic cell: one random displacement per cell, interpolated in between.
ELASTIC_CELL = 4


@dataclass(frozen=True, kw_only=True)
class Draws:
    """The random draws for one batch; None where the configuration needs none.

    Attributes:
        affine_5B: from -1 to 1, factors of the strengths: angle, shear, scale, shift along x and along y.
        displacements_B2CC: from -1 to 1, elastic displacements at C x C grid points, along x and along y.
        centres_2B: row and column of the centre of the square that cutout blackens.
    """

    affine_5B: Tensor | None = None
    displacements_B2CC: Tensor | None = None
    centres_2B: Tensor | None = None


def draw_augment(
    config: AugmentConfig, batch_size: int, image_size: int, device: torch.device, generator: torch.Generator
) -> Draws:
    """Return the draws that `apply_augment` needs for a batch."""
    affine_5B = displacements_B2CC = centres_2B = None
    if any((config.shift, config.rotate, config.scale, config.shear, config.elastic)):
        affine_5B = torch.empty((5, batch_size), device=device).uniform_(-1, 1, generator=generator)
        if config.elastic:
            cells = math.ceil(image_size / ELASTIC_CELL)
            displacements_B2CC = torch.empty((batch_size, 2, cells, cells), device=device).uniform_(
                -1, 1, generator=generator
            )
    if config.cutout:
        centres_2B = torch.randint(image_size, (2, batch_size), generator=generator, device=device)
    return Draws(affine_5B=affine_5B, displacements_B2CC=displacements_B2CC, centres_2B=centres_2B)


def apply_augment(images_BHW: Tensor, config: AugmentConfig, draws: Draws) -> Tensor:
    """Return the float images (0 = background) transformed as `draws` says."""
    if draws.affine_5B is not None:
        images_BHW = _warp(images_BHW, config, draws.affine_5B, draws.displacements_B2CC)
    if draws.centres_2B is not None:
        images_BHW = _cutout(images_BHW, config.cutout, draws.centres_2B)
    return images_BHW


def augment(images_BHW: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Return the float images (0 = background) transformed as `config` says, without mixup."""
    B, size, _ = images_BHW.shape
    return apply_augment(images_BHW, config, draw_augment(config, B, size, images_BHW.device, generator))


def draw_mixup(
    alpha: float, batch_size: int, device: torch.device, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return `partners_B`, the position of the image that is blended in, and `share_B`, the share of the first image.

    The share is drawn from Beta(alpha, alpha).
    """
    partners_B = torch.randperm(batch_size, generator=generator, device=device)
    # A beta is a ratio of two gammas; torch.distributions takes no generator. Logarithms, and gammas of alpha + 1, keep
    # a small alpha from underflowing to a ratio of one half.
    gammas_2B = torch._standard_gamma(torch.full((2, batch_size), alpha + 1, device=device), generator=generator)
    uniform_2B = 1 - torch.rand((2, batch_size), generator=generator, device=device)
    log_gammas_2B = gammas_2B.log() + uniform_2B.log() / alpha
    return partners_B, torch.sigmoid(log_gammas_2B[0] - log_gammas_2B[1])


def mixup(images_BHW: Tensor, alpha: float, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Blend each image with another of the batch (Zhang et al. 2018, arXiv:1710.09412).

    Returns:
        The images, and `partners_B` and `share_B` of `draw_mixup`.
    """
    partners_B, share_B = draw_mixup(alpha, len(images_BHW), images_BHW.device, generator)
    share_B11 = share_B[:, None, None]
    return images_BHW * share_B11 + images_BHW[partners_B] * (1 - share_B11), partners_B, share_B


def _warp(images_BHW: Tensor, config: AugmentConfig, affine_5B: Tensor, displacements_B2CC: Tensor | None) -> Tensor:
    """Sample each image with its own rotation, shear, scale, shift and elastic displacement."""
    size = images_BHW.shape[-1]
    angle_B, shear_B, scale_B, shift_x_B, shift_y_B = affine_5B
    angle_B = angle_B * math.radians(config.rotate)
    shear_B = (shear_B * math.radians(config.shear)).tan()
    scale_B = 1 + scale_B * config.scale
    cos_B, sin_B = angle_B.cos() / scale_B, angle_B.sin() / scale_B
    pixel = 2 / size  # grid coordinates run from -1 to 1
    shift_x_B, shift_y_B = shift_x_B * config.shift * pixel, shift_y_B * config.shift * pixel
    grid_BHW2 = affine_grid(
        size, (cos_B, cos_B * shear_B - sin_B, shift_x_B), (sin_B, sin_B * shear_B + cos_B, shift_y_B)
    )
    if displacements_B2CC is not None:
        displacement_B2CC = displacements_B2CC * (config.elastic * pixel)
        displacement_B2HW = F.interpolate(displacement_B2CC, size=(size, size), mode="bilinear", align_corners=True)
        grid_BHW2 = grid_BHW2 + displacement_B2HW.permute(0, 2, 3, 1)
    return F.grid_sample(images_BHW.unsqueeze(1), grid_BHW2, align_corners=False).squeeze(1)


def affine_grid(size: int, to_x: tuple[Tensor, Tensor, Tensor], to_y: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Return the source position (x, y) of each pixel of each image, (B, H, W, 2).

    `to_x` and `to_y` are the factors, (B,) each, of a pixel's x, its y, and 1. `F.affine_grid` does
    the same as a product of three columns, which on a CPU takes six times as long (tests/benchmarks/LOG.md).
    """
    centre_S = (2 * torch.arange(size, device=to_x[0].device) + 1) / size - 1
    by_column = [(by_x[:, None] * centre_S + by_1[:, None]).unsqueeze(1) for by_x, _, by_1 in (to_x, to_y)]
    by_row = [(by_y[:, None] * centre_S).unsqueeze(2) for _, by_y, _ in (to_x, to_y)]
    return torch.stack([column + row for column, row in zip(by_column, by_row, strict=True)], dim=-1)


def _cutout(images_BHW: Tensor, side: int, centres_2B: Tensor) -> Tensor:
    """Blacken a square of `side` pixels, centred anywhere in the image (DeVries & Taylor 2017, arXiv:1708.04552)."""
    first_2B1 = centres_2B.unsqueeze(2) - side // 2
    pixel_S = torch.arange(images_BHW.shape[-1], device=images_BHW.device)
    inside_2BS = (pixel_S >= first_2B1) & (pixel_S < first_2B1 + side)
    return images_BHW.masked_fill(inside_2BS[0].unsqueeze(2) & inside_2BS[1].unsqueeze(1), 0.0)
