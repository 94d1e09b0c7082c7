"""One kernel that turns uint8 images and raw draws into augmented, mixed, normalised patches.

It does `augment.augment`, mixup, normalisation and `model.patches` in one pass, in float32 until the end.

Shapes: S stacked replicas, M images of the data set, H = W pixels a side, B images of a batch, N tokens (patches),
C cells of the elastic displacement a side.
"""

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from kmnist_search.engine.kernels.launch import blocks, launch

#: Pixels of one program, 4 a thread: two programs for an image of 28 x 28, so that a batch of 128 fills 132
#: multiprocessors twice, while few programs compute the sines of an image. Reasoned, not measured.
BLOCK = 512


@dataclass(frozen=True, kw_only=True)
class Warp:
    """Strengths as in `AugmentConfig`: pixels, degrees, a share of the size, degrees, pixels."""

    shift: float
    rotate: float
    scale: float
    shear: float
    elastic: float


def make_patches(
    images_MHW: Tensor,
    indices_SB: Tensor,
    mean_std_S2: Tensor,
    *,
    patch_size: int,
    padded_pixels: int,
    dtype: torch.dtype,
    warp: Warp | None = None,
    affine_S5B: Tensor | None = None,
    displacements_SB2CC: Tensor | None = None,
    cutout: int = 0,
    centres_S2B: Tensor | None = None,
    partners_SB: Tensor | None = None,
    share_SB: Tensor | None = None,
) -> Tensor:
    """Return the patches of a batch, (S, N, B, padded_pixels).

    Args:
        images_MHW: uint8.
        indices_SB: int64, the images of each replica's batch.
        mean_std_S2: float32, mean and standard deviation that normalise each replica's pixels (from 0 to 1).
        patch_size: side of a patch, which divides that of the image.
        padded_pixels: width of the result, padded with 0 beyond the pixels of a patch.
        dtype: of the result.
        warp: strengths of the affine and elastic transformation; None for neither.
        affine_S5B: float32 draws from -1 to 1: angle, shear, scale, shift along x and along y.
        displacements_SB2CC: float32 draws from -1 to 1, along x and along y; None for no elastic transformation.
        cutout: side of the black square; 0 for none.
        centres_S2B: int64 draws of the square's centre: row and column.
        partners_SB: int64, position in the batch of the image blended in; None for no blending.
        share_SB: float32 share of the first image in the blend.
    """
    size = images_MHW.shape[-1]
    S, B = indices_SB.shape
    N = (size // patch_size) ** 2
    patches_SNBP = torch.empty((S, N, B, padded_pixels), dtype=dtype, device=images_MHW.device)
    cells = 0 if displacements_SB2CC is None else displacements_SB2CC.shape[-1]
    strengths = warp or Warp(shift=0, rotate=0, scale=0, shear=0, elastic=0)
    launch(
        _make_patches_kernel,
        (B, blocks(N * padded_pixels, BLOCK), S),
        *(images_MHW, indices_SB, mean_std_S2, affine_S5B if warp else None, displacements_SB2CC if warp else None),
        *(centres_S2B if cutout else None, partners_SB, share_SB, patches_SNBP),
        *(size, patch_size, padded_pixels, N, cells, cutout),
        *(strengths.shift * 2 / size, math.radians(strengths.rotate), strengths.scale),
        *(math.radians(strengths.shear), strengths.elastic * 2 / size),
        BLOCK=BLOCK,
    )
    return patches_SNBP


@triton.jit
def _tap(image: tl.tensor, row: tl.tensor, column: tl.tensor, size: tl.tensor, wanted: tl.tensor) -> tl.tensor:
    """Return pixels of an image as stored, 0 outside of it."""
    inside = wanted & (row >= 0) & (row < size) & (column >= 0) & (column < size)
    return tl.load(image + row * size + column, mask=inside, other=0).to(tl.float32)


@triton.jit
def _interpolated(field: tl.tensor, row: tl.tensor, column: tl.tensor, cells: tl.tensor) -> tl.tensor:
    """Return a C x C field interpolated bilinearly; its outer cells lie on the outer pixels."""
    top, left = row.to(tl.int32), column.to(tl.int32)
    bottom, right = tl.minimum(top + 1, cells - 1), tl.minimum(left + 1, cells - 1)
    down, along = row - top, column - left
    upper = tl.load(field + top * cells + left) * (1 - along) + tl.load(field + top * cells + right) * along
    lower = tl.load(field + bottom * cells + left) * (1 - along) + tl.load(field + bottom * cells + right) * along
    return upper * (1 - down) + lower * down


@triton.jit
def _sin_and_cos(angle: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """Return the sine and cosine of an angle from -pi to pi, to 4e-7, and to 2e-7 up to a right angle.

    Taylor series of half the angle, then the double-angle formulas. `tl.sin` and `tl.cos` also reduce angles of any
    size, for which the compiler uses 32 bytes of stack.
    """
    half = angle * 0.5
    t = half * half
    sin = 1 - t * (1 / 110) * (1 - t * (1 / 156))
    sin = half * (1 - t * (1 / 6) * (1 - t * (1 / 20) * (1 - t * (1 / 42) * (1 - t * (1 / 72) * sin))))
    cos = 1 - t * (1 / 90) * (1 - t * (1 / 132) * (1 - t * (1 / 182)))
    cos = 1 - t * 0.5 * (1 - t * (1 / 12) * (1 - t * (1 / 30) * (1 - t * (1 / 56) * cos)))
    return 2 * sin * cos, (cos - sin) * (cos + sin)


@triton.jit
def _augmented(
    at: tl.tensor,
    replica: tl.tensor,
    row: tl.tensor,
    column: tl.tensor,
    wanted: tl.tensor,
    images: tl.tensor,
    indices: tl.tensor,
    affine: tl.tensor,
    displacements: tl.tensor,
    centres: tl.tensor,
    batch_size: tl.tensor,
    size: tl.tensor,
    cells: tl.tensor,
    side: tl.tensor,
    shift: tl.tensor,
    rotate: tl.tensor,
    scale: tl.tensor,
    shear: tl.tensor,
    elastic: tl.tensor,
) -> tl.tensor:
    """Return pixels (0 to 1) of the image at a position in the batch, warped and cut. `wanted` masks the loads."""
    image = images + tl.load(indices + replica * batch_size + at) * size * size
    if affine is not None:
        draw = affine + replica * 5 * batch_size + at
        sin, cos = _sin_and_cos(tl.load(draw + batch_size) * shear)
        lean = sin / cos
        grow = 1 + tl.load(draw + 2 * batch_size) * scale
        sin, cos = _sin_and_cos(tl.load(draw) * rotate)
        cos, sin = cos / grow, sin / grow
        # Coordinates as torch's: from -1 to 1 between the outer edges of the image.
        across = (2 * column + 1).to(tl.float32) / size - 1
        down = (2 * row + 1).to(tl.float32) / size - 1
        x = cos * across + (cos * lean - sin) * down + tl.load(draw + 3 * batch_size) * shift
        y = sin * across + (sin * lean + cos) * down + tl.load(draw + 4 * batch_size) * shift
        if displacements is not None:
            field = displacements + (replica * batch_size + at) * 2 * cells * cells
            cells_a_pixel = (cells - 1).to(tl.float32) / (size - 1)
            cell_row, cell_column = row * cells_a_pixel, column * cells_a_pixel
            x += _interpolated(field, cell_row, cell_column, cells) * elastic
            y += _interpolated(field + cells * cells, cell_row, cell_column, cells) * elastic
        x = ((x + 1) * size - 1) / 2
        y = ((y + 1) * size - 1) / 2
        left, top = tl.floor(x), tl.floor(y)
        along, under = x - left, y - top
        left, top = left.to(tl.int32), top.to(tl.int32)
        upper = _tap(image, top, left, size, wanted) * (1 - along) + _tap(image, top, left + 1, size, wanted) * along
        top += 1
        lower = _tap(image, top, left, size, wanted) * (1 - along) + _tap(image, top, left + 1, size, wanted) * along
        value = upper * (1 - under) + lower * under
    else:
        value = _tap(image, row, column, size, wanted)
    if centres is not None:
        centre = centres + replica * 2 * batch_size + at
        below = row - (tl.load(centre) - side // 2)
        right = column - (tl.load(centre + batch_size) - side // 2)
        value = tl.where((below >= 0) & (below < side) & (right >= 0) & (right < side), 0.0, value)
    return value / 255


@triton.jit(
    do_not_specialize=[
        *("images", "indices", "mean_std", "affine", "displacements", "centres", "partners", "share"),
        *("size", "patch_size", "padded_pixels", "tokens", "cells", "side"),
    ]
)
def _make_patches_kernel(
    images: tl.tensor,
    indices: tl.tensor,
    mean_std: tl.tensor,
    affine: tl.tensor,
    displacements: tl.tensor,
    centres: tl.tensor,
    partners: tl.tensor,
    share: tl.tensor,
    patches_out: tl.tensor,
    size: int,
    patch_size: int,
    padded_pixels: int,
    tokens: int,
    cells: int,
    side: int,
    shift: float,
    rotate: float,
    scale: float,
    shear: float,
    elastic: float,
    BLOCK: tl.constexpr,
) -> None:
    """Grid: images of the batch, blocks of pixels in the order of the result, replicas."""
    at, replica = tl.program_id(0).to(tl.int64), tl.program_id(2).to(tl.int64)
    batch_size = tl.num_programs(0)
    position = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    token, pixel = position // padded_pixels, position % padded_pixels
    in_image = token < tokens
    wanted = in_image & (pixel < patch_size * patch_size)
    patches_a_row = size // patch_size
    # Beyond a patch the pixel's row and column may lie outside the image; there only masked loads see them.
    row = token // patches_a_row * patch_size + pixel // patch_size
    column = token % patches_a_row * patch_size + pixel % patch_size
    row, column = tl.where(wanted, row, 0), tl.where(wanted, column, 0)

    value = _augmented(
        at, replica, row, column, wanted, images, indices, affine, displacements, centres,
        batch_size, size, cells, side, shift, rotate, scale, shear, elastic,
    )  # fmt: skip
    if partners is not None:
        first = tl.load(share + replica * batch_size + at)
        partner = tl.load(partners + replica * batch_size + at)
        other = _augmented(
            partner, replica, row, column, wanted, images, indices, affine, displacements, centres,
            batch_size, size, cells, side, shift, rotate, scale, shear, elastic,
        )  # fmt: skip
        value = value * first + other * (1 - first)
    mean, std = tl.load(mean_std + replica * 2), tl.load(mean_std + replica * 2 + 1)
    value = tl.where(wanted, (value - mean) / std, 0.0)
    to = ((replica * tokens + token) * batch_size + at) * padded_pixels + pixel
    tl.store(patches_out + to, value.to(patches_out.dtype.element_ty), mask=in_image)
