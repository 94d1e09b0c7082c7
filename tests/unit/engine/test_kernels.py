"""Tests of engine/kernels/ against torch in float64, with autograd for the gradients.

On a machine without a GPU the kernels run in Triton's interpreter, on the CPU: see conftest.py.
"""

import math
import os
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

pytest.importorskip("triton")
if not torch.cuda.is_available() and "TRITON_INTERPRET" not in os.environ:
    pytest.skip("the GPU is hidden and Triton's interpreter is off: set TRITON_INTERPRET=1", allow_module_level=True)

import triton
import triton.language as tl

from kmnist_search.config import AugmentConfig, OptimizerConfig
from kmnist_search.engine.augment import Draws, apply_augment, draw_augment, draw_mixup
from kmnist_search.engine.kernels.activation import bias_act, bias_act_backward
from kmnist_search.engine.kernels.loss import train_loss, val_loss
from kmnist_search.engine.kernels.norm import Normed, residual_norm, residual_norm_backward
from kmnist_search.engine.kernels.optimizer import Buffers, optimizer_step
from kmnist_search.engine.kernels.patches import Warp, _sin_and_cos, make_patches
from kmnist_search.model.parts import patches

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("one_thread")]

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BFLOAT16, FLOAT32 = torch.bfloat16, torch.float32
DTYPES = pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16], ids=["float32", "bfloat16"])
STACKS = pytest.mark.parametrize("S", [1, 2])

#: Rows of the norm tests are those of 49 tokens and 3 images.
TOKENS, IMAGES = 49, 3


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def normal(*shape: int, dtype: torch.dtype = FLOAT32) -> Tensor:
    return torch.randn(shape, dtype=FLOAT32).to(DEVICE, dtype)


def vectors(S: int, n: int) -> Tensor:
    """Return (S, n) vectors inside a larger buffer, not aligned to anything."""
    return normal(S, n + 9)[:, 5 : 5 + n]


def unwritten(*shape: int) -> Tensor:
    """Return a view of a buffer of NaN, as partial sums are."""
    *outer, n = shape
    return torch.full((*outer, n + 9), math.nan, device=DEVICE)[..., 5 : 5 + n]


def exact(x: Tensor) -> Tensor:
    """Return a float64 leaf."""
    return x.detach().double().requires_grad_()


def assert_close(actual: Tensor, expected: Tensor | None, dtype: torch.dtype = FLOAT32, *, scale: float = 1.0) -> None:
    """Compare; `scale` is how large the numbers are that were added up to this."""
    assert expected is not None
    relative = 1e-5 if dtype == FLOAT32 else 2**-7
    torch.testing.assert_close(actual.double(), expected.detach().double(), rtol=relative, atol=relative * scale)


def mixed_rows(S: int, D: int, dtype: torch.dtype) -> Tensor:
    return normal(S, TOKENS * IMAGES, D, dtype=dtype)


def reference_x(y: Tensor, bias: Tensor, axis: str, residual: Tensor | None, scale_SB: Tensor | None) -> Tensor:
    bias = bias[:, None] if axis == "feature" else bias.repeat_interleave(IMAGES, dim=1)[..., None]
    x = y + bias
    if scale_SB is not None:
        x = x * scale_SB.repeat(1, TOKENS)[..., None]
    return x if residual is None else residual + x


def reference_norm(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:]) * gamma[:, None] + beta[:, None]


def drop_path_scale(S: int) -> Tensor:
    """Return scales of which some are 0."""
    return torch.tensor([[0.0, 1.25, 1.25], [1.25, 0.0, 1.25]], device=DEVICE)[:S].contiguous()


@DTYPES
@STACKS
@pytest.mark.parametrize("axis", ["feature", "token"])
@pytest.mark.parametrize(
    ("D", "with_residual", "with_scale"), [(12, True, True), (20, True, False), (16, False, False)]
)
def test_residual_norm_is_bias_drop_path_sum_and_layer_norm(
    dtype: torch.dtype, S: int, axis: Literal["feature", "token"], D: int, with_residual: bool, with_scale: bool
) -> None:
    y, bias = mixed_rows(S, D, dtype), vectors(S, D if axis == "feature" else TOKENS)
    gamma, beta = vectors(S, D), vectors(S, D)
    residual = mixed_rows(S, D, dtype) if with_residual else None
    scale = drop_path_scale(S) if with_scale else None
    options: dict[str, Any] = {"bias_axis": axis, "batch_size": IMAGES, "residual_SRD": residual, "scale_SB": scale}
    normed = residual_norm(y, bias, **options, gamma_SD=gamma, beta_SD=beta)
    x = reference_x(y.double(), bias.double(), axis, residual, scale)
    assert normed.x_SRD.dtype == normed.n_SRD.dtype == dtype
    assert_close(normed.x_SRD, x, dtype)
    x = normed.x_SRD.double()  # the statistics are of what was stored
    assert_close(normed.n_SRD, reference_norm(x, gamma, beta), dtype)
    assert normed.mean_SR is not None
    assert normed.rstd_SR is not None
    assert_close(normed.mean_SR, x.mean(dim=2))
    assert_close(normed.rstd_SR, (x.var(dim=2, correction=0) + 1e-5).rsqrt())

    without = residual_norm(y, bias, **options)
    assert without.n_SRD is without.x_SRD
    assert without.mean_SR is without.rstd_SR is None
    assert torch.equal(without.x_SRD, normed.x_SRD)


@DTYPES
@STACKS
@pytest.mark.parametrize("axis", ["feature", "token"])
@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize(
    ("D", "with_norm", "with_past", "with_scale"),
    [(12, True, True, True), (20, True, False, False), (12, False, True, True), (16, False, False, False)],
)
def test_residual_norm_backward_is_the_gradient_of_the_forward(
    dtype: torch.dtype,
    S: int,
    axis: Literal["feature", "token"],
    per_image: bool,
    D: int,
    with_norm: bool,
    with_past: bool,
    with_scale: bool,
) -> None:
    K, R = 2, TOKENS * IMAGES
    y, bias = exact(mixed_rows(S, D, dtype)), exact(vectors(S, D if axis == "feature" else TOKENS))
    gamma, beta = vectors(S, D), vectors(S, D)
    scale = drop_path_scale(S) if with_scale else None
    past = mixed_rows(S, D, dtype) if with_past else None
    dn = normal(S, IMAGES, D, dtype=dtype) if per_image else mixed_rows(S, D, dtype)

    x = reference_x(y, bias, axis, None, scale)
    x.retain_grad()
    exact_gamma, exact_beta = exact(gamma), exact(beta)
    n = reference_norm(x, exact_gamma, exact_beta) if with_norm else x
    loss = (n * (dn.repeat(1, TOKENS, 1) if per_image else dn)).sum()
    (loss if past is None else loss + (x * past).sum()).backward()
    assert x.grad is not None

    stored = x.detach().to(dtype)
    normed = Normed(stored, stored, None, None)
    options: dict[str, Any] = {}
    if with_norm:
        mean, rstd = stored.float().mean(dim=2), (stored.float().var(dim=2, correction=0) + 1e-5).rsqrt()
        normed = Normed(stored, normed.n_SRD, mean, rstd)
        sums = unwritten(S, K, 2 * D)  # gamma and beta lie in one buffer
        options = {"gamma_SD": gamma, "dgamma_SKD": sums[..., :D], "dbeta_SKD": sums[..., D:]}
    # All partial sums have the same strides.
    dbias = unwritten(S, K, 2 * D)[..., :D] if axis == "feature" else torch.full((S, R), math.nan, device=DEVICE)
    dx, dy = residual_norm_backward(
        *(dn, normed), bias_axis=axis, batch_size=IMAGES, dbias=dbias, dx_SRD=past, scale_SB=scale, **options
    )

    assert dx.dtype == dy.dtype == dtype
    assert (dx is dy) == (scale is None)
    # A norm divides by the deviation of a row, which drop path leaves at that of the bias.
    size = float(x.grad.abs().max())
    assert_close(dx, x.grad, dtype, scale=size)
    assert_close(dy, y.grad, dtype, scale=size)
    if axis == "feature":
        assert_close(dbias.sum(dim=1), bias.grad, dtype, scale=size * math.sqrt(R))
    else:
        dbias_SN = dbias.view(S, TOKENS, IMAGES).sum(dim=2)
        assert_close(dbias_SN, bias.grad, dtype, scale=size * math.sqrt(D))
    if with_norm:
        rounding = math.sqrt(R) * 3
        assert_close(options["dgamma_SKD"].sum(dim=1), exact_gamma.grad, dtype, scale=rounding)
        assert_close(options["dbeta_SKD"].sum(dim=1), exact_beta.grad, dtype, scale=rounding)


def test_a_constant_row_has_a_norm_and_a_gradient_that_are_finite() -> None:
    y, zeros = torch.ones(1, 4, 12, device=DEVICE), torch.zeros(1, 12, device=DEVICE)
    normed = residual_norm(y, zeros, bias_axis="feature", batch_size=2, gamma_SD=zeros + 1, beta_SD=zeros)
    assert torch.equal(normed.n_SRD, torch.zeros_like(y))
    sums = unwritten(3, 1, 2, 12)
    dx, _ = residual_norm_backward(
        *(normal(1, 4, 12), normed),
        bias_axis="feature",
        batch_size=2,
        gamma_SD=zeros + 1,
        dbias=sums[0],
        dgamma_SKD=sums[1],
        dbeta_SKD=sums[2],
    )
    assert dx.isfinite().all()
    assert sums.isfinite().all()


@pytest.mark.parametrize("D", [1, 7, 1100])
def test_rows_of_any_width_are_normed(D: int) -> None:
    y, bias, gamma, beta = normal(1, 4, D), vectors(1, D), vectors(1, D), vectors(1, D)
    normed = residual_norm(y, bias, bias_axis="feature", batch_size=2, gamma_SD=gamma, beta_SD=beta)
    assert_close(normed.n_SRD, reference_norm((y + bias[:, None]).double(), gamma, beta), scale=10)


def test_slots_without_rows_are_written_too() -> None:
    K, D = 5, 16  # one block of rows
    x, dbias = normal(1, 4, D), unwritten(1, K, D)
    dx, _ = residual_norm_backward(
        normal(1, 4, D), Normed(x, x, None, None), bias_axis="feature", batch_size=2, dbias=dbias
    )
    assert torch.equal(dbias[:, 1:], torch.zeros(1, K - 1, D, device=DEVICE))
    assert_close(dbias[:, 0], dx.sum(dim=1))


def dropout_mask(h: Tensor) -> Tensor:
    return torch.empty_like(h).bernoulli_(0.8) / 0.8


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu}
#: Rows and columns as in a token MLP of 12 hidden values and in a channel MLP.
HIDDEN = {"row": (12, 300), "column": (147, 20)}


@DTYPES
@STACKS
@pytest.mark.parametrize("axis", ["row", "column"])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("with_mask", [False, True])
def test_bias_act_and_its_backward_are_those_of_torch(
    dtype: torch.dtype,
    S: int,
    axis: Literal["row", "column"],
    activation: Literal["gelu", "relu"],
    with_mask: bool,
) -> None:
    rows, columns = HIDDEN[axis]
    n, K = rows if axis == "row" else columns, 3
    h, bias, da = normal(S, rows, columns, dtype=dtype), vectors(S, n), normal(S, rows, columns, dtype=dtype)
    mask = dropout_mask(h) if with_mask else None
    exact_h, exact_bias = exact(h), exact(bias)
    a = ACTIVATIONS[activation](exact_h + (exact_bias[:, :, None] if axis == "row" else exact_bias[:, None]))
    a = a if mask is None else a * mask
    a.backward(da.double())

    assert_close(bias_act(h, bias, bias_axis=axis, activation=activation, mask=mask), a, dtype)
    dbias, memory = unwritten(S, K, n), da.data_ptr()
    dh = bias_act_backward(da, h, bias, bias_axis=axis, activation=activation, mask=mask, dbias_SKn=dbias)
    assert dh.dtype == dtype
    assert dh.data_ptr() == memory
    assert_close(dh, exact_h.grad, dtype)
    assert_close(dbias.sum(dim=1), exact_bias.grad, scale=math.sqrt(rows * columns / n) * 3)


def test_gelu_is_that_of_the_error_function_to_the_rounding_of_float32() -> None:
    z = torch.linspace(-12, 12, 4096, device=DEVICE)[None, None]
    zeros = torch.zeros(1, 4096, device=DEVICE)
    difference = bias_act(z, zeros, bias_axis="column", activation="gelu").double() - F.gelu(z.double())
    assert (difference.abs() <= 2e-7 * z.abs().clamp(min=1)).all()


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_a_nan_stays_one(activation: Literal["gelu", "relu"]) -> None:
    h, bias = torch.full((1, 4, 16), math.nan, device=DEVICE), torch.zeros(1, 16, device=DEVICE)
    assert bias_act(h, bias, bias_axis="column", activation=activation).isnan().all()


@DTYPES
@STACKS
@pytest.mark.parametrize("with_mixup", [False, True])
@pytest.mark.parametrize(("smoothing", "B"), [(0.0, 7), (0.1, 150)])
def test_train_loss_and_its_gradient_are_those_of_torch(
    dtype: torch.dtype, S: int, with_mixup: bool, smoothing: float, B: int
) -> None:
    logits, bias = normal(S, B, 16, dtype=dtype) * 3, vectors(S, 16)
    labels = torch.randint(10, (S, B), device=DEVICE)
    partner_labels = torch.randint(10, (S, B), device=DEVICE) if with_mixup else None
    share = torch.rand(S, B, device=DEVICE) if with_mixup else None
    sums = torch.full((S, 4), 2.0, dtype=torch.float64, device=DEVICE)
    dbias = unwritten(S, 16)
    dlogits = train_loss(
        *(logits, bias, labels),
        smoothing=smoothing,
        partner_labels_SB=partner_labels,
        share_SB=share,
        sums_S4=sums,
        dbias_SL=dbias,
    )

    exact_logits, exact_bias = exact(logits), exact(bias)
    z = (exact_logits + exact_bias[:, None])[..., :10].mT
    losses, right_labels = F.cross_entropy(z, labels, label_smoothing=smoothing, reduction="none"), labels
    if partner_labels is not None and share is not None:
        others = F.cross_entropy(z, partner_labels, label_smoothing=smoothing, reduction="none")
        losses = share * losses + (1 - share) * others
        right_labels = torch.where(share >= 0.5, labels, partner_labels)
    losses.mean(dim=1).sum().backward()
    assert dlogits.dtype == dtype
    assert_close(dlogits, exact_logits.grad, dtype, scale=1 / B)
    assert torch.equal(dlogits[..., 10:], torch.zeros_like(dlogits[..., 10:]))
    assert_close(dbias, exact_bias.grad, scale=1)
    assert_close(sums[:, 0], 2 + losses.mean(dim=1))
    assert torch.equal(sums[:, 1], 2.0 + (z.argmax(dim=1) == right_labels).sum(dim=1))
    assert (sums[:, 2:] == 2).all()


@DTYPES
@STACKS
def test_val_loss_adds_up_cross_entropies_and_right_answers(dtype: torch.dtype, S: int) -> None:
    logits, bias = normal(S, 150, 16, dtype=dtype) * 3, vectors(S, 16)
    labels = torch.randint(10, (S, 150), device=DEVICE)
    sums = torch.full((S, 4), 2.0, dtype=torch.float64, device=DEVICE)
    val_loss(logits, bias, labels, sums_S4=sums)
    z = (logits.double() + bias[:, None])[..., :10]
    losses = [F.cross_entropy(z_BL, labels_B, reduction="sum") for z_BL, labels_B in zip(z, labels, strict=True)]
    assert (sums[:, :2] == 2).all()
    assert_close(sums[:, 2], 2 + torch.stack(losses))
    assert torch.equal(sums[:, 3], 2.0 + (z.argmax(dim=2) == labels).sum(dim=1))


def test_the_first_of_equal_logits_is_the_answer_and_padding_never_is() -> None:
    logits = torch.zeros(1, 3, 16, device=DEVICE)
    logits[0, 1, 4:7] = 1
    logits[0, 2, 12] = 9
    sums = torch.zeros(1, 4, dtype=torch.float64, device=DEVICE)
    val_loss(logits, torch.zeros(1, 16, device=DEVICE), torch.tensor([[0, 4, 0]], device=DEVICE), sums_S4=sums)
    assert sums[0, 3] == 3


def test_a_loss_that_is_not_finite_is_seen_in_the_sums() -> None:
    logits, zeros = torch.zeros(1, 3, 16, device=DEVICE), torch.zeros(1, 16, device=DEVICE)
    logits[0, 1, 3] = math.nan
    sums = torch.zeros(1, 4, dtype=torch.float64, device=DEVICE)
    labels = torch.zeros(1, 3, dtype=torch.int64, device=DEVICE)
    train_loss(logits, zeros, labels, smoothing=0.1, sums_S4=sums, dbias_SL=unwritten(1, 16))
    assert sums[0, 0].isnan()


EVERYTHING = {"shift": 2.0, "rotate": 15.0, "scale": 0.2, "shear": 10.0, "elastic": 1.5, "cutout": 7, "mixup": 0.4}
AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "shift": {"shift": 3.0},
    "rotate far": {"rotate": 180.0},
    "scale and shear": {"scale": 0.9, "shear": 60.0},
    "elastic": {"elastic": 4.0},
    "cutout": {"cutout": 8},
    "mixup": {"mixup": 0.4},
    "everything": EVERYTHING,
}


@triton.jit  # type: ignore[untyped-decorator]
def sin_and_cos_kernel(angles: tl.tensor, out: tl.tensor, BLOCK: tl.constexpr) -> None:
    at = tl.arange(0, BLOCK)
    sin, cos = _sin_and_cos(tl.load(angles + at))
    tl.store(out + at, sin)
    tl.store(out + BLOCK + at, cos)


def test_sine_and_cosine_are_exact_to_the_rounding_of_float32() -> None:
    angles = torch.linspace(-math.pi, math.pi, 2**14, device=DEVICE)
    out = torch.empty(2, len(angles), device=DEVICE)
    sin_and_cos_kernel[1,](angles, out, BLOCK=len(angles))
    expected = torch.stack((angles.double().sin(), angles.double().cos()))
    errors = (out.double() - expected).abs()
    assert errors.max() <= 4e-7
    assert errors[:, angles.abs() <= math.pi / 2].max() <= 2e-7


def random_images(images: int, size: int) -> Tensor:
    return torch.randint(256, (images, size, size), dtype=torch.uint8, device=DEVICE)


def warp_of(config: AugmentConfig) -> Warp | None:
    names = ("shift", "rotate", "scale", "shear", "elastic")
    strengths = {name: getattr(config, name) for name in names}
    return Warp(**strengths) if any(strengths.values()) else None


def stacked(replicas: list[Tensor | None]) -> Tensor | None:
    return torch.stack([replica for replica in replicas if replica is not None]) if replicas[0] is not None else None


@STACKS
@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize(("size", "patch_size", "padded_pixels"), [(28, 4, 16), (28, 7, 56), (32, 8, 64)])
def test_patches_are_augmented_mixed_and_normalised_as_by_torch(
    S: int, name: str, size: int, patch_size: int, padded_pixels: int
) -> None:
    B, mean_std_S2 = 3, torch.tensor([[0.19, 0.35], [0.25, 0.5]], device=DEVICE)[:S]
    config = AugmentConfig(**AUGMENTATIONS[name])
    images, indices = random_images(9, size), torch.randint(9, (S, B), device=DEVICE)
    generator = torch.Generator(DEVICE).manual_seed(1)
    draws: list[Draws] = []
    blends: list[tuple[Tensor | None, Tensor | None]] = []
    expected = []
    for indices_B, (mean, std) in zip(indices, mean_std_S2.double(), strict=True):
        draws.append(draw_augment(config, B, size, DEVICE, generator))
        x_BHW = apply_augment(images[indices_B].double() / 255, config, as_double(draws[-1]))
        blends.append((None, None))
        if config.mixup:
            partners_B, share_B = draw_mixup(config.mixup, B, DEVICE, generator)
            blends[-1] = (partners_B, share_B)
            x_BHW = x_BHW * share_B[:, None, None] + x_BHW[partners_B] * (1 - share_B[:, None, None])
        expected.append(patches((x_BHW - mean) / std, patch_size))
    made = make_patches(
        *(images, indices, mean_std_S2),
        patch_size=patch_size,
        padded_pixels=padded_pixels,
        dtype=FLOAT32,
        warp=warp_of(config),
        cutout=config.cutout,
        affine_S5B=stacked([draw.affine_5B for draw in draws]),
        displacements_SB2CC=stacked([draw.displacements_B2CC for draw in draws]),
        centres_S2B=stacked([draw.centres_2B for draw in draws]),
        partners_SB=stacked([partners_B for partners_B, _ in blends]),
        share_SB=stacked([share_B for _, share_B in blends]),
    )
    # A coordinate of 28 pixels in float32 is good to 2e-6, and neighbours differ by up to 1 / std.
    torch.testing.assert_close(
        made[..., : patch_size**2].double(), torch.stack(expected), rtol=1e-5, atol=5e-5 if warp_of(config) else 1e-6
    )
    assert torch.equal(made[..., patch_size**2 :], torch.zeros_like(made[..., patch_size**2 :]))


def as_double(draws: Draws) -> Draws:
    affine = None if draws.affine_5B is None else draws.affine_5B.double()
    displacements = None if draws.displacements_B2CC is None else draws.displacements_B2CC.double()
    return Draws(affine_5B=affine, displacements_B2CC=displacements, centres_2B=draws.centres_2B)


def test_patches_are_rounded_to_the_dtype_asked_for() -> None:
    images, indices = random_images(5, 28), torch.arange(5, device=DEVICE).unsqueeze(0)
    mean_std_S2 = torch.tensor([[0.2, 0.3]], device=DEVICE)
    made = make_patches(images, indices, mean_std_S2, patch_size=14, padded_pixels=200, dtype=BFLOAT16)
    expected = patches((images.double() / 255 - 0.2) / 0.3, 14)
    assert_close(made[0, ..., :196], expected, BFLOAT16)


def optimizer_buffers(S: int, M: int, V: int, dtype: torch.dtype, *, second: bool, average: bool) -> Buffers:
    masters = normal(S, M + V)
    return Buffers(
        masters_SP=masters,
        work_SM=unwritten(S, M).contiguous().to(dtype),
        matrix_grads_SM=torch.zeros(S, M, device=DEVICE, dtype=dtype),
        vector_grads_SV=torch.zeros(S, V, device=DEVICE),
        first_SP=torch.zeros_like(masters),
        second_SP=torch.zeros_like(masters) if second else None,
        average_SP=masters.clone() if average else None,
        norms_SG=unwritten(S, 3).contiguous(),
    )


OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1, "clip_norm": 1.0, "beta2": 0.95},
    "adamw, unclipped": {"optimizer": "adamw", "weight_decay": 0.1, "clip_norm": 0.0, "ema_decay": 0.9},
    "adam": {"optimizer": "adam", "weight_decay": 0.1, "clip_norm": 1.0, "ema_decay": 0.9},
    "sgd": {"optimizer": "sgd", "weight_decay": 0.1, "clip_norm": 1.0, "momentum": 0.9, "ema_decay": 0.9},
    "sgd without momentum": {"optimizer": "sgd", "weight_decay": 0.0, "clip_norm": 1000.0, "momentum": 0.0},
}


def torch_optimizer(config: OptimizerConfig, matrix: Tensor, vector: Tensor) -> torch.optim.Optimizer:
    groups = [{"params": [matrix], "weight_decay": config.weight_decay}, {"params": [vector], "weight_decay": 0.0}]
    match config.optimizer:
        case "adamw":
            return torch.optim.AdamW(groups, lr=1.0, betas=(0.9, config.beta2))
        case "adam":
            return torch.optim.Adam(groups, lr=1.0, betas=(0.9, config.beta2))
        case "sgd":
            return torch.optim.SGD(groups, lr=1.0, momentum=config.momentum)


@DTYPES
@STACKS
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_three_steps_are_those_of_torch(dtype: torch.dtype, S: int, name: str) -> None:
    M, V, steps, shares = 2500, 170, 3, (0.9, 0.5, 0.2)  # no multiples of anything
    config = OptimizerConfig(**OPTIMIZERS[name])
    buffers = optimizer_buffers(*(S, M, V, dtype), second=config.optimizer != "sgd", average=config.ema_decay > 0)
    parameters = [(exact(row[:M]), exact(row[M:])) for row in buffers.masters_SP]
    averages = buffers.masters_SP.double()
    optimizers = [torch_optimizer(config, *replica) for replica in parameters]
    learning_rates = (1e-2, 2e-2, 1e-3)
    rates = torch.full((S, 4 + steps, 4), math.nan, device=DEVICE)  # four steps of an epoch gone by
    for replica in range(S):
        for step in range(steps):
            row = (learning_rates[step] / (replica + 1), 1 - 0.9 ** (step + 1), 1 - config.beta2 ** (step + 1))
            rates[replica, 4 + step] = torch.tensor((*row, shares[step]))
    position = torch.tensor([3], device=DEVICE)
    for step in range(steps):
        buffers.matrix_grads_SM.copy_(normal(S, M) * 0.1)
        buffers.vector_grads_SV.copy_(normal(S, V) * 0.1)
        for replica, (matrix, vector) in enumerate(parameters):
            matrix.grad = buffers.matrix_grads_SM[replica].double()
            vector.grad = buffers.vector_grads_SV[replica].double()
            if config.clip_norm:
                torch.nn.utils.clip_grad_norm_([matrix, vector], config.clip_norm)
            for group in optimizers[replica].param_groups:
                group["lr"] = learning_rates[step] / (replica + 1)
            optimizers[replica].step()
            averages[replica].lerp_(torch.cat((matrix, vector)).detach(), shares[step])
        optimizer_step(buffers, config, rates, position, 1 + step)
    expected = torch.stack([torch.cat(replica) for replica in parameters])
    assert_close(buffers.masters_SP, expected)
    assert_close(buffers.work_SM, buffers.masters_SP[:, :M], dtype)  # Triton's interpreter cuts off where a GPU rounds
    if buffers.average_SP is not None:
        assert_close(buffers.average_SP, averages)


def test_a_gradient_that_is_not_finite_reaches_every_weight() -> None:
    buffers = optimizer_buffers(1, 48, 16, FLOAT32, second=True, average=False)
    buffers.vector_grads_SV[0, 3] = math.nan
    rates = torch.tensor([[[1e-3, 0.1, 0.01, 0.0]]], device=DEVICE)
    optimizer_step(buffers, OptimizerConfig(), rates, torch.tensor([0], device=DEVICE), 0)
    assert buffers.masters_SP.isnan().all()


def test_two_runs_of_a_kernel_are_alike_to_the_bit() -> None:
    h, bias = normal(2, 147, 20, dtype=BFLOAT16), vectors(2, 20)
    gradients = [unwritten(2, 3, 20) for _ in range(2)]
    for dbias in gradients:
        torch.manual_seed(5)
        da = normal(2, 147, 20, dtype=BFLOAT16)
        bias_act_backward(da, h, bias, bias_axis="column", activation="gelu", dbias_SKn=dbias)
    assert torch.equal(*gradients)
