"""Tests of model/ and config/cost.py: the PatchMLP against a batch-first reference, and its counted costs."""

import math
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings, strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from kmnist_search import model
from kmnist_search.config import LayersConfig, ModelConfig, PatchMLPConfig, cost
from kmnist_search.model import parts, patch_mlp
from kmnist_search.model.patch_mlp import Block, ChannelMLP, Norm, PatchMLP, TokenMLP

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL: dict[str, Any] = {"patch_size": 7, "dim": 12, "token_width": 10, "channel_width": 14, "num_blocks": 3}


@st.composite
def model_configs(draw: st.DrawFn) -> PatchMLPConfig:
    image_size = draw(st.sampled_from([28, 32]))
    num_blocks = draw(st.integers(1, 3))
    width = st.integers(1, 12)
    widths = width | st.lists(width, min_size=num_blocks, max_size=num_blocks)
    skip = draw(st.booleans())
    return PatchMLPConfig.model_validate(
        {
            "image_size": image_size,
            "patch_size": draw(st.sampled_from([size for size in (4, 7, 8, 14, 16, 28, 32) if image_size % size == 0])),
            "dim": draw(st.integers(1, 12)),
            "token_width": draw(widths),
            "channel_width": draw(widths),
            "num_blocks": num_blocks,
            "norm": draw(st.sampled_from(["layer", "batch", "none"])),
            "activation": draw(st.sampled_from(["gelu", "relu"])),
            "skip": skip,
            "dropout": draw(st.sampled_from([0.0, 0.2])),
            "drop_path": draw(st.sampled_from([0.0, 0.3])) if skip else 0.0,
        }
    )


def images_of(config: PatchMLPConfig, number: int = 3) -> Tensor:
    return torch.randn(number, config.image_size, config.image_size, generator=torch.Generator().manual_seed(5))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# A reference that is batch-first throughout and computes each part in another way.


def token_mlp_reference(mlp: TokenMLP, x_BND: Tensor) -> Tensor:
    x_BDN = x_BND.transpose(1, 2)
    hidden_BDT = activation(mlp.config, F.linear(x_BDN, mlp.weight1_NT.T, mlp.bias1_T))
    return F.linear(hidden_BDT, mlp.weight2_NT, mlp.bias2_N).transpose(1, 2)


def channel_mlp_reference(mlp: ChannelMLP, x_BND: Tensor) -> Tensor:
    hidden_BNC = torch.einsum("bnd,cd->bnc", x_BND, mlp.linear1.weight) + mlp.linear1.bias
    return torch.einsum("bnc,dc->bnd", activation(mlp.config, hidden_BNC), mlp.linear2.weight) + mlp.linear2.bias


def activation(config: PatchMLPConfig, x: Tensor) -> Tensor:
    if config.activation == "relu":
        return x.clamp_min(0)
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def norm_reference(norm: Norm, x_BND: Tensor) -> Tensor:
    if isinstance(norm.norm, torch.nn.Identity):
        return x_BND
    if isinstance(norm.norm, torch.nn.BatchNorm1d):  # in eval mode, with the statistics kept so far
        mean, var = norm.norm.running_mean, norm.norm.running_var
        assert mean is not None
        assert var is not None
    else:
        mean, var = x_BND.mean(dim=-1, keepdim=True), x_BND.var(dim=-1, keepdim=True, correction=0)
    scaled: Tensor = (x_BND - mean) / (var + 1e-5).sqrt() * norm.norm.weight + norm.norm.bias
    return scaled


def forward_reference(net: PatchMLP, images_BHW: Tensor) -> Tensor:
    config = net.config
    x_BPN = F.unfold(images_BHW.unsqueeze(1), config.patch_size, stride=config.patch_size)
    x_BND = F.linear(x_BPN.transpose(1, 2), net.stem.weight, net.stem.bias)
    for block in net.blocks:
        assert isinstance(block, Block)
        mixed = token_mlp_reference(block.token_mlp, norm_reference(block.norm1, x_BND))
        x_BND = x_BND + mixed if config.skip else mixed
        mixed = channel_mlp_reference(block.channel_mlp, norm_reference(block.norm2, x_BND))
        x_BND = x_BND + mixed if config.skip else mixed
    return F.linear(norm_reference(net.norm, x_BND).mean(dim=1), net.classifier.weight, net.classifier.bias)


def test_patches_are_in_reading_order_and_so_are_the_pixels_in_them() -> None:
    images = torch.stack((torch.arange(16).view(4, 4), 100 + torch.arange(16).view(4, 4)))
    expected = [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    cut = parts.patches(images, 2)
    assert cut.shape == (4, 2, 4)
    assert cut[:, 0].tolist() == expected
    assert cut[:, 1].tolist() == [[100 + pixel for pixel in patch] for patch in expected]


def test_one_patch_is_the_whole_image_and_patches_of_1_are_its_pixels() -> None:
    images = torch.arange(2 * 9).view(2, 3, 3)
    assert torch.equal(parts.patches(images, 3), images.view(1, 2, 9))
    assert torch.equal(parts.patches(images, 1), images.view(2, 9, 1).transpose(0, 1))


@settings(max_examples=25, deadline=None)
@given(model_configs())
@example(PatchMLPConfig())
@example(PatchMLPConfig(image_size=32, norm="batch", token_width=(1, 2, 3, 4)))
def test_the_counted_parameters_are_those_of_the_model(config: PatchMLPConfig) -> None:
    net = model.build(config, 0)
    assert cost.num_parameters(config) == sum(parameter.numel() for parameter in net.parameters())


@settings(max_examples=25, deadline=None)
@given(model_configs(), st.integers(1, 3))
@example(PatchMLPConfig(), 1)
@example(PatchMLPConfig(image_size=32, norm="batch", token_width=(1, 2, 3, 4)), 2)
def test_the_counted_operations_are_those_of_a_forward_pass(config: PatchMLPConfig, images: int) -> None:
    net = model.build(config, 0).eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        net(images_of(config, images))
    assert cost.flops_per_image(config) * images == counter.get_total_flops()


def test_a_training_step_takes_three_times_the_counted_operations_but_for_the_images() -> None:
    config = PatchMLPConfig(**SMALL)
    net = model.build(config, 0)
    counter = FlopCounterMode(display=False)
    with counter:
        net(images_of(config, 2)).sum().backward()
    stem = 2 * config.num_tokens * config.patch_size**2 * config.dim  # no gradient of the images is needed
    assert counter.get_total_flops() == 2 * (3 * cost.flops_per_image(config) - stem)


@settings(max_examples=25, deadline=None)
@given(model_configs())
@example(PatchMLPConfig(**SMALL, norm="batch", image_size=28))
@example(PatchMLPConfig(**{**SMALL, "patch_size": 8}, norm="batch", image_size=32))
def test_the_model_computes_what_a_batch_first_one_does(config: PatchMLPConfig) -> None:
    images = images_of(config).double()
    net = model.build(config, 1).double().train()
    net(images)  # moves the statistics of batch norms away from where they start
    net.eval()
    with torch.no_grad():
        logits = net(images)
        assert logits.shape == (3, 10)
        torch.testing.assert_close(logits, forward_reference(net, images), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("kind", ["gelu", "relu"])
def test_the_token_mlp_mixes_tokens_alike_for_every_feature(kind: str) -> None:
    config = PatchMLPConfig.model_validate({**SMALL, "activation": kind})
    mlp = TokenMLP(config, 10)
    x_BND = torch.randn(5, config.num_tokens, config.dim, generator=generator())
    mixed_NBD = mlp(x_BND.transpose(0, 1), None)
    torch.testing.assert_close(mixed_NBD.transpose(0, 1), token_mlp_reference(mlp, x_BND), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["gelu", "relu"])
def test_the_channel_mlp_mixes_features_alike_for_every_token(kind: str) -> None:
    config = PatchMLPConfig.model_validate({**SMALL, "activation": kind})
    mlp = ChannelMLP(config, 14)
    x_BND = torch.randn(5, config.num_tokens, config.dim, generator=generator())
    mixed_NBD = mlp(x_BND.transpose(0, 1), None)
    torch.testing.assert_close(mixed_NBD.transpose(0, 1), channel_mlp_reference(mlp, x_BND), rtol=1e-4, atol=1e-6)


def test_batch_norm_takes_its_statistics_over_images_and_tokens() -> None:
    norm = Norm("batch", 6).train()
    x_NBD = torch.randn(4, 5, 6, generator=generator()) * 3 + 2
    normed = norm(x_NBD)
    torch.testing.assert_close(normed.mean(dim=(0, 1)), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(normed.var(dim=(0, 1), correction=0), torch.ones(6), atol=1e-4, rtol=0)


@pytest.mark.parametrize("norm", ["layer", "none", "batch"])
def test_an_image_does_not_depend_on_the_others_of_its_batch_in_evaluation(norm: str) -> None:
    config = PatchMLPConfig.model_validate({**SMALL, "norm": norm})
    net = model.build(config, 0).eval()
    images = images_of(config, 4)
    with torch.no_grad():
        torch.testing.assert_close(net(images)[2:3], net(images[2:3]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["dropout", "drop_path"])
def test_dropout_and_drop_path_act_where_noise_is_given_only(name: str) -> None:
    config = PatchMLPConfig(**{**SMALL, name: 0.5})
    net, plain = model.build(config, 0), model.build(PatchMLPConfig(**SMALL), 0)
    images = images_of(config)

    def noisy(seed: int) -> torch.Tensor:
        logits: torch.Tensor = net(images, net.draw(len(images), torch.float32, generator(seed)))
        return logits

    with torch.no_grad():
        expected = plain(images)
        assert torch.equal(net(images), expected)
        assert not torch.equal(noisy(0), expected)
        assert torch.equal(noisy(0), noisy(0))
        assert not torch.equal(noisy(0), noisy(1))


def test_a_given_generator_leaves_that_of_the_process_alone() -> None:
    config = PatchMLPConfig(**SMALL, dropout=0.5, drop_path=0.5)
    net = model.build(config, 0).train()
    before = torch.get_rng_state()
    net(images_of(config), net.draw(3, torch.float32, generator()))
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_keeps_its_share_and_scales_up_what_is_left() -> None:
    (kept,) = parts.dropout_masks([((200, 200), 0.25)], torch.float32, torch.device("cpu"), generator())
    assert torch.equal(kept.unique(), torch.tensor([0.0, 1 / 0.75]))
    assert (kept > 0).float().mean().item() == pytest.approx(0.75, abs=0.01)


def test_a_block_adds_what_an_images_drop_path_factors_say() -> None:
    config = PatchMLPConfig(**SMALL)
    block = Block(config, 10, 14)
    torch.nn.init.zeros_(block.channel_mlp.linear2.weight)  # so that only the token MLP adds anything
    torch.nn.init.zeros_(block.channel_mlp.linear2.bias)
    x_NBD = torch.randn(config.num_tokens, 3, config.dim, generator=generator())
    with torch.no_grad():
        added = block(x_NBD, factors_2B=torch.tensor([[0.0, 1.0, 2.0], [1.0, 1.0, 1.0]])) - x_NBD
        mixed = block.token_mlp(block.norm1(x_NBD), None)
    assert (added[:, 0] == 0).all()
    torch.testing.assert_close(added[:, 1], mixed[:, 1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(added[:, 2], 2 * mixed[:, 2], rtol=1e-4, atol=1e-5)


def test_drop_path_grows_linearly_from_the_first_block_to_the_last_and_scales_up_what_is_left() -> None:
    config = PatchMLPConfig(**{**SMALL, "num_blocks": 5}, drop_path=0.2)
    keeps_K11 = patch_mlp.drop_path_keeps(config, torch.device("cpu"))
    factors_K2B = patch_mlp.drop_path_factors(keeps_K11, 20_000, generator())
    dropped = (factors_K2B == 0).float().mean(dim=2)
    for number, share in enumerate([0.0, 0.05, 0.1, 0.15, 0.2]):
        assert dropped[number].tolist() == pytest.approx([share, share], abs=0.015)
        assert factors_K2B[number].max().item() == pytest.approx(1 / (1 - share))
    assert factors_K2B.mean().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("norm", ["layer", "batch", "none"])
@pytest.mark.parametrize(("image_size", "patch_size"), [(28, 7), (32, 8)])
def test_the_same_seed_gives_the_same_weights_and_another_one_others(
    norm: str, image_size: int, patch_size: int
) -> None:
    config = PatchMLPConfig.model_validate({**SMALL, "norm": norm, "image_size": image_size, "patch_size": patch_size})
    once, again, other = (model.build(config, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(once[name], again[name]) for name in once)
    drawn = [name for name in once if "norm" not in name]
    assert len(drawn) == 4 + 8 * config.num_blocks
    assert not any(torch.equal(once[name], other[name]) for name in drawn)


def test_building_leaves_the_generator_of_the_process_alone() -> None:
    before = torch.get_rng_state()
    model.build(PatchMLPConfig(**SMALL), 3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    again = model.build(PatchMLPConfig(**SMALL), 3).stem.weight
    assert torch.equal(again, model.build(PatchMLPConfig(**SMALL), 3).stem.weight)


def test_token_weights_start_as_those_of_a_linear_layer_would() -> None:
    config = PatchMLPConfig(**{**SMALL, "patch_size": 4})
    mlp = TokenMLP(config, 200)
    for parameter, inputs in (
        (mlp.weight1_NT, config.num_tokens),
        (mlp.bias1_T, config.num_tokens),
        (mlp.weight2_NT, 200),
        (mlp.bias2_N, 200),
    ):
        bound = 1 / math.sqrt(inputs)
        assert 0.85 * bound < parameter.abs().max() <= bound
        assert parameter.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.25)


@pytest.mark.parametrize("norm", ["layer", "batch", "none"])
def test_every_weight_gets_a_gradient(norm: str) -> None:
    config = PatchMLPConfig.model_validate({**SMALL, "norm": norm})
    net = model.build(config, 0).train()
    F.cross_entropy(net(images_of(config)), torch.tensor([0, 5, 9])).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    "config",
    [
        PatchMLPConfig(**SMALL, dropout=0.2, drop_path=0.3),
        LayersConfig(patch_size=14, layers=("linear features 8", "dropout 0.2", "relu", "mean tokens")),
    ],
    ids=["patch mlp", "layers"],
)
def test_a_forward_pass_with_noise_compiles_as_one_graph(config: ModelConfig) -> None:
    torch.compiler.reset()
    net = model.build(config, 0).train()
    images = torch.rand(3, config.image_size, config.image_size)
    compiled = torch.compile(net, fullgraph=True, backend="eager")  # raises at each interruption of the graph
    noise = net.draw(3, torch.float32, generator())
    torch.testing.assert_close(compiled(images, noise), net(images, noise))
