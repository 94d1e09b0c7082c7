"""Gradient clipping, optimizer step, working weights and moving average: one step in two kernels.

Shapes: S stacked replicas, P = M + V parameters (M of matrices first, then V of vectors), G partial sums of squares,
E steps of an epoch. M and V should be multiples of 16, padded with zeros if necessary; otherwise every access is of a
single number.
"""

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from kmnist_search.config import OptimizerConfig
from kmnist_search.engine.kernels.launch import STAGES, TILE, blocks, launch, power_of_2

BETA1 = 0.9
EPSILON = tl.constexpr(1e-8)  # as torch.optim

#: Parameters of one program: 8 a thread, two 16-byte loads of each of up to four float32 buffers. Reasoned, not
#: measured.
BLOCK = 1024


@dataclass(frozen=True, kw_only=True, eq=False)
class Buffers:
    """All buffers that a step reads and writes; float32 unless stated otherwise.

    Attributes:
        masters_SP: the parameters.
        work_SM: copy of the matrices in the dtype of the activations.
        matrix_grads_SM: their gradients, in the same dtype.
        vector_grads_SV: gradients of the vectors.
        first_SP: first moments, or the momentum of sgd; initially zeros.
        second_SP: second moments, initially zeros; sgd has none.
        average_SP: moving average of the parameters, if there is one.
        norms_SG: partial sums of squares of the gradients.
    """

    masters_SP: Tensor
    work_SM: Tensor
    matrix_grads_SM: Tensor
    vector_grads_SV: Tensor
    first_SP: Tensor
    second_SP: Tensor | None
    average_SP: Tensor | None
    norms_SG: Tensor


def optimizer_step(buffers: Buffers, config: OptimizerConfig, rates_SE4: Tensor, position: Tensor, offset: int) -> None:
    """Clip, step as torch.optim does, round the working weights, and move the average.

    Args:
        buffers: the step changes masters, working weights, moments, average and norms.
        config: kind and strengths; the learning rate comes from the table instead.
        rates_SE4: float32, for each replica and step: learning rate; 1 - 0.9**t and 1 - beta2**t (unused by sgd), where
            t counts from 1; the share of the new weights in the average.
        position: int64, one element on the device: the row of the table, minus `offset`.
        offset: added to `position`.
    """
    S, M = buffers.matrix_grads_SM.shape
    V = buffers.vector_grads_SV.shape[1]
    G = buffers.norms_SG.shape[1]
    grads = (buffers.matrix_grads_SM, buffers.vector_grads_SV)
    if config.clip_norm:
        launch(_norms_kernel, (G, S), *grads, buffers.norms_SG, M, V, BLOCK=TILE, STAGES=STAGES)
    launch(
        _step_kernel,
        (blocks(M + V, BLOCK), S),
        *grads,
        *(buffers.norms_SG if config.clip_norm else None, rates_SE4, position),
        *(buffers.masters_SP, buffers.first_SP, buffers.second_SP, buffers.work_SM, buffers.average_SP),
        *(M, V, G, rates_SE4.shape[1], offset, config.clip_norm, config.weight_decay),
        config.weight_decay if config.decayed == "all" else 0.0,
        *(config.momentum if config.optimizer == "sgd" else BETA1, config.beta2, 1 - BETA1, 1 - config.beta2),
        OPTIMIZER=config.optimizer,
        BLOCK=BLOCK,
        BLOCK_G=power_of_2(G),
    )


@triton.jit(do_not_specialize=["norms"])
def _norms_kernel(
    matrix_grads: tl.tensor,
    vector_grads: tl.tensor,
    norms: tl.tensor,
    matrix_size: int,
    vector_size: int,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
) -> None:
    """Grid: partial sums, replicas. The programs take turns on the blocks."""
    slot, replica = tl.program_id(0), tl.program_id(1).to(tl.int64)
    total = tl.zeros((BLOCK,), tl.float32)
    for block in tl.range(slot, tl.cdiv(matrix_size, BLOCK), tl.num_programs(0), num_stages=STAGES):
        at = block * BLOCK + tl.arange(0, BLOCK)
        grad = tl.load(matrix_grads + replica * matrix_size + at, mask=at < matrix_size, other=0.0).to(tl.float32)
        total += grad * grad
    for block in tl.range(slot, tl.cdiv(vector_size, BLOCK), tl.num_programs(0), num_stages=1):
        at = block * BLOCK + tl.arange(0, BLOCK)
        grad = tl.load(vector_grads + replica * vector_size + at, mask=at < vector_size, other=0.0)
        total += grad * grad
    tl.store(norms + replica * tl.num_programs(0) + slot, tl.sum(total, axis=0))


@triton.jit(do_not_specialize=["norms", "rates", "position", "partials", "steps", "offset"])
def _step_kernel(
    matrix_grads: tl.tensor,
    vector_grads: tl.tensor,
    norms: tl.tensor,
    rates: tl.tensor,
    position: tl.tensor,
    masters: tl.tensor,
    firsts: tl.tensor,
    seconds: tl.tensor,
    work: tl.tensor,
    averages: tl.tensor,
    matrix_size: int,
    vector_size: int,
    partials: int,
    steps: int,
    offset: int,
    clip_norm: float,
    weight_decay: float,
    vector_decay: float,
    beta1: float,
    beta2: float,
    rest1: float,
    rest2: float,
    OPTIMIZER: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_G: tl.constexpr,
) -> None:
    """Grid: blocks of parameters, replicas. `rest1` is 1 - beta1, rounded once; for sgd `beta1` is the momentum."""
    replica = tl.program_id(1).to(tl.int64)
    size = matrix_size + vector_size
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside, is_matrix = at < size, at < matrix_size
    here = replica * size + at
    in_matrices = replica * matrix_size + at
    in_vectors = replica * vector_size + at - matrix_size
    # Nearly all blocks hold matrices only and read no vectors; the others read no matrices.
    grad = tl.load(matrix_grads + in_matrices, mask=is_matrix, other=0.0).to(tl.float32)
    grad += tl.load(vector_grads + in_vectors, mask=inside & (at >= matrix_size), other=0.0)
    weight = tl.load(masters + here, mask=inside, other=0.0)
    first = tl.load(firsts + here, mask=inside, other=0.0)

    rate_row = rates + (replica * steps + tl.load(position) + offset) * 4
    rate = tl.load(rate_row)
    if norms is not None:
        slot = tl.arange(0, BLOCK_G)
        squares = tl.load(norms + replica * partials + slot, mask=slot < partials, other=0.0)
        factor = clip_norm / (tl.sqrt(tl.sum(squares, axis=0)) + 1e-6)
        grad *= tl.where(factor >= 1, 1.0, factor)  # as torch.nn.utils.clip_grad_norm_; a NaN stays one
    decay = tl.where(is_matrix, weight_decay, vector_decay)
    if OPTIMIZER == "adamw":
        weight *= 1 - rate * decay
    else:
        grad += decay * weight
    if OPTIMIZER == "sgd":
        first = beta1 * first + grad
        weight -= rate * first
    else:
        first += rest1 * (grad - first)
        second = beta2 * tl.load(seconds + here, mask=inside, other=0.0) + rest2 * grad * grad
        root = tl.sqrt(second) / tl.sqrt(tl.load(rate_row + 2)) + EPSILON
        weight -= rate / tl.load(rate_row + 1) * (first / root)
        tl.store(seconds + here, second, mask=inside)
    tl.store(firsts + here, first, mask=inside)
    tl.store(masters + here, weight, mask=inside)
    tl.store(work + in_matrices, weight.to(work.dtype.element_ty), mask=is_matrix)
    if averages is not None:
        average = tl.load(averages + here, mask=inside, other=0.0)
        tl.store(averages + here, average + tl.load(rate_row + 3) * (weight - average), mask=inside)
