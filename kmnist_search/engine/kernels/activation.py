"""Bias, activation and dropout of the hidden layer fused into one pass, and their gradients into another.

Shapes: S stacked replicas, K slots of partial sums. The hidden layer is (S, rows, columns): (S, T, B*D) in a token MLP,
with a bias for each row, and (S, N*B, C) in a channel MLP, with a bias for each column.
"""

from typing import Literal

import torch
import triton
import triton.language as tl
from torch import Tensor

from kmnist_search.engine.kernels.launch import (
    BACKWARD_WARPS,
    FORWARD_WARPS,
    STAGES,
    TILE,
    blocks,
    launch,
    power_of_2,
    stride,
)

HiddenBiasAxis = Literal["row", "column"]
Activation = Literal["gelu", "relu"]


def bias_act(
    h: Tensor, bias: Tensor, *, bias_axis: HiddenBiasAxis, activation: Activation, mask: Tensor | None = None
) -> Tensor:
    """Return act(h + bias) * mask, (S, rows, columns).

    Args:
        h: output of a layer, without its bias.
        bias: float32, (S, rows) or (S, columns).
        bias_axis: axis of the bias.
        activation: gelu is torch's exact one, with the error function; see `_gelu`.
        mask: like h, factor of dropout: 0 or 1 / (1 - p).
    """
    S, rows, columns = h.shape
    a = torch.empty_like(h)
    shape = _blocks(columns, FORWARD_WARPS)
    tiles = blocks(rows, shape["BLOCK_R"]) * blocks(columns, shape["BLOCK_C"])
    launch(
        _bias_act_kernel,
        (tiles, S),
        *(h, bias, mask, a, rows, columns, stride(bias)),
        BIAS_PER_ROW=bias_axis == "row",
        ACTIVATION=activation,
        **shape,
    )
    return a


def bias_act_backward(
    da: Tensor,
    h: Tensor,
    bias: Tensor,
    *,
    bias_axis: HiddenBiasAxis,
    activation: Activation,
    dbias_SKn: Tensor,
    mask: Tensor | None = None,
) -> Tensor:
    """Return the gradient of h in the memory of `da`; fill the gradient of the bias.

    Args:
        da: gradient of the forward pass's result; overwritten.
        h: as in the forward.
        bias: as in the forward.
        bias_axis: as in the forward.
        activation: as in the forward.
        dbias_SKn: float32 partial sums (S, K, rows) or (S, K, columns); every slot is written.
        mask: as in the forward.
    """
    S, rows, columns = h.shape
    shape = _blocks(columns, BACKWARD_WARPS)
    kept_blocks = blocks(rows, shape["BLOCK_R"]) if bias_axis == "row" else blocks(columns, shape["BLOCK_C"])
    launch(
        _bias_act_backward_kernel,
        (dbias_SKn.shape[1], kept_blocks, S),
        *(da, h, bias, mask, dbias_SKn, rows, columns, stride(bias), *dbias_SKn.stride()[:2]),
        BIAS_PER_ROW=bias_axis == "row",
        ACTIVATION=activation,
        STAGES=STAGES,
        **shape,
    )
    return da


def _blocks(columns: int, warps: int) -> dict[str, int]:
    # 256 columns of bfloat16: each warp reads 512 contiguous bytes of a row. Reasoned, not measured.
    width = min(max(power_of_2(columns), 16), 256)
    return {"BLOCK_R": TILE // width, "BLOCK_C": width, "num_warps": warps}


@triton.jit
def _normal_cdf(z: tl.tensor, gaussian: tl.tensor) -> tl.tensor:
    """Return the standard normal distribution function of z; `gaussian` is exp(-z**2 / 2).

    Abramowitz & Stegun 7.1.26, with an error of at most 8e-8, one rounding of float32 near 1. It needs half the
    instructions of CUDA's erff, which alone takes as long as the memory traffic of a bfloat16 pass. The backward pass
    needs `gaussian` anyway.
    """
    t = 1.0 / (1.0 + 0.231641888 * tl.abs(z))  # 0.3275911 / sqrt(2)
    polynomial = 0.5 * 1.061405429
    polynomial = polynomial * t - 0.5 * 1.453152027
    polynomial = polynomial * t + 0.5 * 1.421413741
    polynomial = polynomial * t - 0.5 * 0.284496736
    polynomial = polynomial * t + 0.5 * 0.254829592
    tail = polynomial * t * gaussian
    return tl.where(z < 0, tail, 1.0 - tail)


@triton.jit
def _gaussian(z: tl.tensor) -> tl.tensor:
    """Return exp(-z**2 / 2)."""
    return tl.exp2(z * z * -0.72134752)  # log2(e) / 2


@triton.jit
def _gelu(z: tl.tensor) -> tl.tensor:
    return z * _normal_cdf(z, _gaussian(z))


@triton.jit
def _gelu_slope(z: tl.tensor) -> tl.tensor:
    gaussian = _gaussian(z)
    return _normal_cdf(z, gaussian) + z * (0.39894228 * gaussian)  # 1 / sqrt(2 pi)


@triton.jit(do_not_specialize=["bias", "rows", "bias_stride"])
def _bias_act_kernel(
    h: tl.tensor,
    bias: tl.tensor,
    mask: tl.tensor,
    a_out: tl.tensor,
    rows: int,
    columns: int,
    bias_stride: int,
    BIAS_PER_ROW: tl.constexpr,
    ACTIVATION: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
) -> None:
    """Grid: tiles (block of rows after block of rows), replicas."""
    tile, replica = tl.program_id(0), tl.program_id(1).to(tl.int64)
    column_blocks = tl.cdiv(columns, BLOCK_C)
    row = tile // column_blocks * BLOCK_R + tl.arange(0, BLOCK_R)
    column = tile % column_blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    in_rows, in_columns = row < rows, column < columns
    inside = in_rows[:, None] & in_columns[None, :]
    at = (replica * rows + row)[:, None] * columns + column[None, :]

    z = tl.load(h + at, mask=inside, other=0.0).to(tl.float32)
    if BIAS_PER_ROW:
        z += tl.load(bias + replica * bias_stride + row, mask=in_rows, other=0.0)[:, None]
    else:
        z += tl.load(bias + replica * bias_stride + column, mask=in_columns, other=0.0)[None, :]
    # This form keeps NaN: a diverging training must be detected.
    a = _gelu(z) if ACTIVATION == "gelu" else tl.where(z < 0, 0.0, z)
    if mask is not None:
        a *= tl.load(mask + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(a_out + at, a.to(a_out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["bias", "dbias", "rows", "bias_stride", "replica_stride", "slot_stride"])
def _bias_act_backward_kernel(
    da: tl.tensor,
    h: tl.tensor,
    bias: tl.tensor,
    mask: tl.tensor,
    dbias: tl.tensor,
    rows: int,
    columns: int,
    bias_stride: int,
    replica_stride: int,
    slot_stride: int,
    BIAS_PER_ROW: tl.constexpr,
    ACTIVATION: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
    STAGES: tl.constexpr,
) -> None:
    """Grid: slots, blocks along the bias, replicas. The slots take turns on the blocks of the other axis."""
    slot, kept, replica = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    total = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    summed_blocks = tl.cdiv(columns, BLOCK_C) if BIAS_PER_ROW else tl.cdiv(rows, BLOCK_R)
    for block in tl.range(slot, summed_blocks, tl.num_programs(0), num_stages=STAGES):
        row = (kept if BIAS_PER_ROW else block) * BLOCK_R + tl.arange(0, BLOCK_R)
        column = (block if BIAS_PER_ROW else kept) * BLOCK_C + tl.arange(0, BLOCK_C)
        in_rows, in_columns = row < rows, column < columns
        inside = in_rows[:, None] & in_columns[None, :]
        at = (replica * rows + row)[:, None] * columns + column[None, :]
        z = tl.load(h + at, mask=inside, other=0.0).to(tl.float32)
        gradient = tl.load(da + at, mask=inside, other=0.0).to(tl.float32)
        if mask is not None:
            gradient *= tl.load(mask + at, mask=inside, other=0.0).to(tl.float32)
        if BIAS_PER_ROW:
            z += tl.load(bias + replica * bias_stride + row, mask=in_rows, other=0.0)[:, None]
        else:
            z += tl.load(bias + replica * bias_stride + column, mask=in_columns, other=0.0)[None, :]
        gradient = gradient * _gelu_slope(z) if ACTIVATION == "gelu" else tl.where(z > 0, gradient, 0.0)
        tl.store(da + at, gradient.to(da.dtype.element_ty), mask=inside)
        total += gradient

    to = replica * replica_stride + slot * slot_stride
    if BIAS_PER_ROW:
        row = kept * BLOCK_R + tl.arange(0, BLOCK_R)
        tl.store(dbias + to + row, tl.sum(total, axis=1), mask=row < rows)
    else:
        column = kept * BLOCK_C + tl.arange(0, BLOCK_C)
        tl.store(dbias + to + column, tl.sum(total, axis=0), mask=column < columns)
