"""Tests of engine/augment.py: each kind of augmentation alone, and mixup."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from kmnist_search.config import AugmentConfig
from kmnist_search.engine.augment import affine_grid, augment, mixup

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS: dict[str, Any] = {
    "shift": 2.0,
    "rotate": 15.0,
    "scale": 0.2,
    "shear": 10.0,
    "elastic": 1.5,
    "cutout": 8,
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(images: int = 16, size: int = 28) -> Tensor:
    """Return images without two alike and without a black pixel."""
    return torch.rand(images, size, size, generator=generator(99)) * 0.9 + 0.1


def blobs(images: int = 64, size: int = 28) -> Tensor:
    """Return images of one soft spot in the middle, so that its centre can be measured to a share of a pixel."""
    pixel = torch.arange(size) - (size - 1) / 2
    profile = torch.exp(-(pixel**2) / (2 * 2.0**2))
    return (profile[:, None] * profile).expand(images, size, size).clone()


def centres(images: Tensor) -> Tensor:
    """Return the centres of mass as (B, 2): row and column, from the middle of the image."""
    pixel = torch.arange(images.shape[-1]) - (images.shape[-1] - 1) / 2
    mass = images.sum(dim=(1, 2))
    return torch.stack(
        ((images.sum(dim=2) * pixel).sum(dim=1) / mass, (images.sum(dim=1) * pixel).sum(dim=1) / mass), dim=1
    )


def test_strength_0_leaves_the_images_as_they_are() -> None:
    images = noise()
    state = generator()
    assert augment(images, AugmentConfig(), state) is images
    assert torch.equal(images, noise())
    assert torch.equal(state.get_state(), generator().get_state())


def test_the_grid_of_an_affine_map_is_torchs() -> None:
    rows = torch.randn(2, 3, 5, generator=generator())
    own = torch.nn.functional.affine_grid(rows.permute(2, 0, 1), [5, 1, 28, 28], align_corners=False)
    made = affine_grid(28, (rows[0, 0], rows[0, 1], rows[0, 2]), (rows[1, 0], rows[1, 1], rows[1, 2]))
    torch.testing.assert_close(made, own)


def test_every_kind_is_tested_here() -> None:
    assert {*KINDS, "mixup"} == AugmentConfig.model_fields.keys()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [28, 32])
def test_each_kind_changes_every_image_but_not_the_batch_it_was_given(kind: str, size: int) -> None:
    images = noise(size=size)
    before = images.clone()
    changed = augment(images, AugmentConfig(**{kind: KINDS[kind]}), generator())
    assert changed.shape == images.shape
    assert changed.dtype == torch.float32
    assert (changed != images).flatten(1).any(dim=1).all()
    assert torch.equal(images, before)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_keeps_grey_values_between_black_and_the_brightest(kind: str) -> None:
    changed = augment(noise(), AugmentConfig(**{kind: KINDS[kind]}), generator())
    assert changed.isfinite().all()
    assert changed.min() >= 0
    assert changed.max() <= noise().max() + 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_images_and_another_one_others(kind: str) -> None:
    config = AugmentConfig(**{kind: KINDS[kind]})
    once, again, other = (augment(noise(), config, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_one_batch_are_changed_differently(kind: str) -> None:
    alike = noise(images=1).expand(16, 28, 28)
    changed = augment(alike, AugmentConfig(**{kind: KINDS[kind]}), generator())
    assert len({image.numpy().tobytes() for image in changed}) > 8


@pytest.mark.parametrize("pixels", [0.5, 2.0, 5.0])
def test_a_shift_moves_by_at_most_its_pixels_in_every_direction(pixels: float) -> None:
    moved = centres(augment(blobs(), AugmentConfig(shift=pixels), generator()))
    assert moved.abs().max() <= pixels + 0.02
    for axis in (0, 1):
        assert moved[:, axis].max() > 0.8 * pixels
        assert moved[:, axis].min() < -0.8 * pixels


def test_what_a_shift_moves_in_is_black() -> None:
    moved = augment(torch.ones(64, 28, 28), AugmentConfig(shift=3.0), generator())
    torch.testing.assert_close(moved[:, 4:-4, 4:-4], torch.ones(64, 20, 20))
    border = torch.ones(28, 28, dtype=torch.bool)
    border[4:-4, 4:-4] = False
    assert (moved[:, border].amin(dim=1) < 1).all()


def bars() -> Tensor:
    """Return images of one upright soft bar."""
    pixel = torch.arange(28) - 13.5
    return (torch.exp(-(pixel[:, None] ** 2) / 32) * torch.exp(-(pixel**2) / 2)).expand(64, 28, 28).clone()


def moments(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the second moments of each image: along rows, along columns, and mixed."""
    pixel = torch.arange(28) - 13.5
    mass = images.sum(dim=(1, 2))
    rows = (images.sum(dim=2) * pixel**2).sum(dim=1) / mass
    columns = (images.sum(dim=1) * pixel**2).sum(dim=1) / mass
    mixed = (images * pixel[:, None] * pixel).sum(dim=(1, 2)) / mass
    return rows, columns, mixed


def test_a_rotation_turns_by_at_most_its_degrees_both_ways() -> None:
    rows, columns, mixed = moments(augment(bars(), AugmentConfig(rotate=20.0), generator()))
    degrees = torch.rad2deg(0.5 * torch.atan2(2 * mixed, rows - columns))
    assert degrees.abs().max() <= 20.2
    assert degrees.max() > 16
    assert degrees.min() < -16


def test_a_scale_grows_and_shrinks_by_at_most_its_share() -> None:
    rows, _, _ = moments(blobs())
    scaled, _, _ = moments(augment(blobs(), AugmentConfig(scale=0.2), generator()))
    factor = (scaled / rows).sqrt()
    assert factor.max() <= 1.22
    assert factor.min() >= 0.78
    assert factor.max() > 1.15
    assert factor.min() < 0.85


def test_a_shear_leans_by_at_most_its_degrees_and_leaves_the_rows_where_they_are() -> None:
    rows_before, _, _ = moments(bars())
    rows, _, mixed = moments(augment(bars(), AugmentConfig(shear=20.0), generator()))
    degrees = torch.rad2deg(torch.atan(mixed / rows))
    assert degrees.abs().max() <= 20.5
    assert degrees.max() > 16
    assert degrees.min() < -16
    torch.testing.assert_close(rows, rows_before, rtol=0.02, atol=0)


def test_a_displacement_is_smooth_and_at_most_its_pixels() -> None:
    ramp = torch.arange(28.0).expand(16, 28, 28).clone()  # the value of a pixel is its column
    bent = augment(ramp, AugmentConfig(elastic=1.5), generator())
    inside = (bent - ramp)[:, 3:-3, 3:-3]
    assert inside.abs().max() <= 1.5 + 1e-3
    assert inside.abs().max() > 1.0
    assert inside.diff(dim=1).abs().max() <= 2 * 1.5 / 4 * 1.1
    assert inside.flatten(1).std(dim=1).min() > 0.1


@pytest.mark.parametrize("side", [1, 2, 7, 8, 28])
def test_cutout_blackens_one_square_and_nothing_else(side: int) -> None:
    images = noise(images=128)
    cut = augment(images, AugmentConfig(cutout=side), generator())
    black = cut == 0
    assert torch.equal(cut[~black], images[~black])
    counts = black.sum(dim=(1, 2))
    assert counts.max() <= side**2
    assert counts.min() >= 1
    rows, columns = black.any(dim=2).sum(dim=1), black.any(dim=1).sum(dim=1)
    assert torch.equal(rows * columns, counts)
    if side <= 8:
        assert counts.max() == side**2
    if side >= 7:
        assert black.any(dim=0).all()


def test_the_kinds_work_together() -> None:
    changed = augment(noise(size=32), AugmentConfig(**KINDS), generator())
    assert changed.shape == (16, 32, 32)
    assert changed.isfinite().all()


@settings(max_examples=25, deadline=None)
@given(alpha=st.floats(1e-3, 100), seed=st.integers(0, 2**31))
def test_mixup_blends_each_image_with_its_partner_by_its_share(alpha: float, seed: int) -> None:
    images = noise()
    mixed, partners, share = mixup(images, alpha, generator(seed))
    assert sorted(partners.tolist()) == list(range(16))
    assert share.min() >= 0
    assert share.max() <= 1
    for number in range(16):
        first, second = images[number], images[partners[number]]
        assert torch.equal(mixed[number], first * share[number] + second * (1 - share[number]))


def test_mixup_shares_are_of_the_beta_distribution() -> None:
    _, _, share = mixup(torch.zeros(20_000, 1, 1), 0.4, generator())
    assert share.mean().item() == pytest.approx(0.5, abs=0.01)
    assert share.var(correction=0).item() == pytest.approx(1 / (4 * (2 * 0.4 + 1)), rel=0.03)


def test_mixup_of_the_same_seed_is_the_same_and_of_another_one_another() -> None:
    once, again, other = (mixup(noise(), 0.4, generator(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    assert not torch.equal(once[0], other[0])


@pytest.mark.parametrize("alpha", [0.01, 1e-4])
def test_mixup_of_a_small_strength_leaves_nearly_every_image_whole(alpha: float) -> None:
    _, _, share = mixup(torch.zeros(20_000, 1, 1), alpha, generator())
    assert share.mean().item() == pytest.approx(0.5, abs=0.02)
    assert share.var(correction=0).item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)
