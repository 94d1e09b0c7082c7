"""Bias, drop path, residual sum and layer norm fused into one pass, and their gradients into another.

Shapes: S stacked replicas, N tokens, B images of a batch, R = N*B rows (row n*B + b: tokens first), D features,
K slots of partial sums. Activations are contiguous; arithmetic is float32 whatever their dtype.
"""

from typing import Literal, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from kmnist_search.engine.kernels.launch import (
    BACKWARD_WARPS,
    FORWARD_WARPS,
    STAGES,
    blocks,
    launch,
    row_blocks,
    stride,
)

EPSILON = tl.constexpr(1e-5)  # as torch.nn.LayerNorm

ResidualBiasAxis = Literal["feature", "token"]


class Normed(NamedTuple):
    """The backward pass's inputs; without a norm `n_SRD` is `x_SRD` and there are no statistics."""

    x_SRD: Tensor
    n_SRD: Tensor
    mean_SR: Tensor | None
    rstd_SR: Tensor | None


def residual_norm(
    y_SRD: Tensor,
    bias: Tensor,
    *,
    bias_axis: ResidualBiasAxis,
    batch_size: int,
    residual_SRD: Tensor | None = None,
    scale_SB: Tensor | None = None,
    gamma_SD: Tensor | None = None,
    beta_SD: Tensor | None = None,
) -> Normed:
    """Return x = residual + scale * (y + bias) and n = layer_norm(x) * gamma + beta.

    x is rounded to the dtype of y before its statistics are taken, so that the backward pass, which reads x again,
    differentiates exactly this norm. Without `gamma_SD` there is no norm.

    Args:
        y_SRD: output of a layer, without its bias.
        bias: float32, (S, D) along the features or (S, N) along the tokens.
        bias_axis: axis of the bias.
        batch_size: B.
        residual_SRD: the residual that y is added to.
        scale_SB: float32 factor of y + bias for each image: 0 or 1 / (1 - p) under drop path.
        gamma_SD: float32 scale of the norm.
        beta_SD: float32 shift of the norm.
    """
    S, R, D = y_SRD.shape
    x_SRD, n_SRD = torch.empty_like(y_SRD), None
    mean_SR = rstd_SR = None
    if gamma_SD is not None:
        n_SRD = torch.empty_like(y_SRD)
        mean_SR, rstd_SR = torch.empty((2, S, R), dtype=torch.float32, device=y_SRD.device)
    shape = row_blocks(D, FORWARD_WARPS)
    launch(
        _residual_norm_kernel,
        (blocks(R, shape["BLOCK_R"]), S),
        *(y_SRD, bias, residual_SRD, scale_SB, gamma_SD, beta_SD, x_SRD, n_SRD, mean_SR, rstd_SR),
        *(R, D, batch_size, stride(bias), stride(gamma_SD), stride(beta_SD)),
        TOKEN_BIAS=bias_axis == "token",
        **shape,
    )
    return Normed(x_SRD, x_SRD if n_SRD is None else n_SRD, mean_SR, rstd_SR)


def residual_norm_backward(
    dn: Tensor,
    normed: Normed,
    *,
    bias_axis: ResidualBiasAxis,
    batch_size: int,
    dbias: Tensor,
    dx_SRD: Tensor | None = None,
    scale_SB: Tensor | None = None,
    gamma_SD: Tensor | None = None,
    dgamma_SKD: Tensor | None = None,
    dbeta_SKD: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of x, which is also that of the residual, and of y; fill those of bias, gamma and beta.

    Args:
        dn: gradient of n: (S, R, D), or (S, B, D) if it is the same for all tokens.
        normed: result of the forward pass.
        bias_axis: as in the forward.
        batch_size: B.
        dbias: along the features float32 partial sums (S, K, D); along the tokens float32 (S, R), the sum of each row,
            to be summed over the images by the caller.
        dx_SRD: gradient that reaches x past the norm.
        scale_SB: as in the forward.
        gamma_SD: as in the forward.
        dgamma_SKD: float32 partial sums; every slot is written.
        dbeta_SKD: the same. All partial sums are views of one buffer with the same strides.

    Returns:
        dx and dy; without `scale_SB` they are the same tensor.
    """
    S, R, D = normed.x_SRD.shape
    dx_out_SRD = torch.empty_like(normed.x_SRD)
    dy_SRD = None if scale_SB is None else torch.empty_like(normed.x_SRD)
    shape = row_blocks(D, BACKWARD_WARPS)
    partials = dgamma_SKD if bias_axis == "token" else dbias
    # Without partial sums there is a program for each block.
    slots = blocks(R, shape["BLOCK_R"]) if partials is None else partials.shape[1]
    replica_stride, slot_stride = (0, 0) if partials is None else partials.stride()[:2]
    launch(
        _residual_norm_backward_kernel,
        (slots, S),
        *(dn, normed.x_SRD, normed.mean_SR, normed.rstd_SR, gamma_SD, dx_SRD, scale_SB),
        *(dx_out_SRD, dy_SRD, dgamma_SKD, dbeta_SKD, dbias),
        *(R, D, batch_size, dn.shape[1], stride(gamma_SD), replica_stride, slot_stride),
        TOKEN_BIAS=bias_axis == "token",
        DN_PER_IMAGE=dn.shape[1] != R,
        STAGES=STAGES,
        **shape,
    )
    return dx_out_SRD, dx_out_SRD if dy_SRD is None else dy_SRD


@triton.jit(
    do_not_specialize=[
        *("bias", "scale", "gamma", "beta", "rows", "batch_size"),
        *("bias_stride", "gamma_stride", "beta_stride"),
    ]
)
def _residual_norm_kernel(
    y: tl.tensor,
    bias: tl.tensor,
    residual: tl.tensor,
    scale: tl.tensor,
    gamma: tl.tensor,
    beta: tl.tensor,
    x_out: tl.tensor,
    n_out: tl.tensor,
    mean_out: tl.tensor,
    rstd_out: tl.tensor,
    rows: int,
    features: int,
    batch_size: int,
    bias_stride: int,
    gamma_stride: int,
    beta_stride: int,
    TOKEN_BIAS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
) -> None:
    """Grid: blocks of rows, replicas."""
    replica = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    feature = tl.arange(0, BLOCK_D)
    in_rows, in_features = row < rows, feature < features
    inside = in_rows[:, None] & in_features[None, :]
    at = (replica * rows + row)[:, None] * features + feature[None, :]

    x = tl.load(y + at, mask=inside, other=0.0).to(tl.float32)
    if TOKEN_BIAS:
        x += tl.load(bias + replica * bias_stride + row // batch_size, mask=in_rows, other=0.0)[:, None]
    else:
        x += tl.load(bias + replica * bias_stride + feature, mask=in_features, other=0.0)[None, :]
    if scale is not None:
        x *= tl.load(scale + replica * batch_size + row % batch_size, mask=in_rows, other=0.0)[:, None]
    if residual is not None:
        x += tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
    rounded = x.to(x_out.dtype.element_ty)
    tl.store(x_out + at, rounded, mask=inside)

    if gamma is not None:
        x = rounded.to(tl.float32)
        mean = tl.sum(tl.where(inside, x, 0.0), axis=1) / features
        centred = tl.where(inside, x - mean[:, None], 0.0)
        rstd = tl.rsqrt(tl.sum(centred * centred, axis=1) / features + EPSILON)
        scale_n = tl.load(gamma + replica * gamma_stride + feature, mask=in_features, other=0.0)
        shift_n = tl.load(beta + replica * beta_stride + feature, mask=in_features, other=0.0)
        n = centred * rstd[:, None] * scale_n[None, :] + shift_n[None, :]
        tl.store(n_out + at, n.to(n_out.dtype.element_ty), mask=inside)
        tl.store(mean_out + replica * rows + row, mean, mask=in_rows)
        tl.store(rstd_out + replica * rows + row, rstd, mask=in_rows)


@triton.jit(
    do_not_specialize=[
        *("gamma", "scale", "dgamma", "dbeta", "dbias", "rows", "batch_size", "dn_rows"),
        *("gamma_stride", "replica_stride", "slot_stride"),
    ]
)
def _residual_norm_backward_kernel(
    dn: tl.tensor,
    x: tl.tensor,
    mean: tl.tensor,
    rstd: tl.tensor,
    gamma: tl.tensor,
    dx_in: tl.tensor,
    scale: tl.tensor,
    dx_out: tl.tensor,
    dy_out: tl.tensor,
    dgamma: tl.tensor,
    dbeta: tl.tensor,
    dbias: tl.tensor,
    rows: int,
    features: int,
    batch_size: int,
    dn_rows: int,
    gamma_stride: int,
    replica_stride: int,
    slot_stride: int,
    TOKEN_BIAS: tl.constexpr,
    DN_PER_IMAGE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
    STAGES: tl.constexpr,
) -> None:
    """Grid: slots, replicas. The slots take turns on the blocks of rows, so neighbours read neighbours."""
    slot, replica = tl.program_id(0), tl.program_id(1).to(tl.int64)
    feature = tl.arange(0, BLOCK_D)
    in_features = feature < features
    if gamma is not None:
        scale_n = tl.load(gamma + replica * gamma_stride + feature, mask=in_features, other=0.0)
        # Two-dimensional sums, reduced over the rows once at the end instead of in each round.
        gamma_sum = tl.zeros((BLOCK_R, BLOCK_D), tl.float32)
        beta_sum = tl.zeros((BLOCK_R, BLOCK_D), tl.float32)
    if not TOKEN_BIAS:
        bias_sum = tl.zeros((BLOCK_R, BLOCK_D), tl.float32)

    for block in tl.range(slot, tl.cdiv(rows, BLOCK_R), tl.num_programs(0), num_stages=STAGES):
        row = block * BLOCK_R + tl.arange(0, BLOCK_R)
        in_rows = row < rows
        inside = in_rows[:, None] & in_features[None, :]
        at = (replica * rows + row)[:, None] * features + feature[None, :]
        dn_row = row % batch_size if DN_PER_IMAGE else row
        dn_at = (replica * dn_rows + dn_row)[:, None] * features + feature[None, :]
        gradient = tl.load(dn + dn_at, mask=inside, other=0.0).to(tl.float32)
        if gamma is not None:
            value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
            row_mean = tl.load(mean + replica * rows + row, mask=in_rows, other=0.0)
            row_rstd = tl.load(rstd + replica * rows + row, mask=in_rows, other=0.0)
            normal = (value - row_mean[:, None]) * row_rstd[:, None]
            # Outside, the gradient is 0, and so are all sums below.
            gamma_sum += gradient * normal
            beta_sum += gradient
            gradient *= scale_n[None, :]
            along = tl.sum(gradient * normal, axis=1) / features
            level = tl.sum(gradient, axis=1) / features
            gradient = (gradient - normal * along[:, None] - level[:, None]) * row_rstd[:, None]
        if dx_in is not None:
            gradient += tl.load(dx_in + at, mask=inside, other=0.0).to(tl.float32)
        tl.store(dx_out + at, gradient.to(dx_out.dtype.element_ty), mask=inside)
        if scale is not None:
            gradient *= tl.load(scale + replica * batch_size + row % batch_size, mask=in_rows, other=0.0)[:, None]
            tl.store(dy_out + at, gradient.to(dy_out.dtype.element_ty), mask=inside)
        # The norm's gradient is not 0 in the columns beyond the features.
        gradient = tl.where(inside, gradient, 0.0)
        if TOKEN_BIAS:
            tl.store(dbias + replica * rows + row, tl.sum(gradient, axis=1), mask=in_rows)
        else:
            bias_sum += gradient

    to = replica * replica_stride + slot * slot_stride + feature
    if gamma is not None:
        tl.store(dgamma + to, tl.sum(gamma_sum, axis=0), mask=in_features)
        tl.store(dbeta + to, tl.sum(beta_sum, axis=0), mask=in_features)
    if not TOKEN_BIAS:
        tl.store(dbias + to, tl.sum(bias_sum, axis=0), mask=in_features)
