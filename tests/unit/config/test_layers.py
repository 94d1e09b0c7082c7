"""Tests of config/layers.py and model/layered_mlp.py: nets described layer by layer, and their counted costs."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from kmnist_search.config import LayersConfig, TrialConfig, cost
from kmnist_search.errors import ConfigError
from kmnist_search.model import build

pytestmark = pytest.mark.usefixtures("one_thread")

BRANCHED: tuple[Any, ...] = (
    "linear features 12",
    "batch_norm features",
    ("linear tokens 5", "batch_norm tokens", "gelu", "linear tokens 16", "linear features 12"),
    "linear tokens 9",
    "relu",
    "mean features",
)


def config_of(*layers: Any, **others: Any) -> LayersConfig:
    return LayersConfig(layers=layers, **{"patch_size": 7, **others})


def images(number: int = 6, size: int = 28) -> Tensor:
    return torch.randn(number, size, size, generator=torch.Generator().manual_seed(5))


def unfolded(images_BHW: Tensor, patch_size: int) -> Tensor:
    """Patches as torch cuts them, batch first."""
    return F.unfold(images_BHW.unsqueeze(1), patch_size, stride=patch_size).transpose(1, 2)


def test_a_layered_net_computes_what_torch_layers_on_batch_first_numbers_do() -> None:
    net = build(config_of(*BRANCHED), 3)
    weights = list(net.parameters())
    stem_w, stem_b, norm_w, norm_b, t1_w, t1_b, n2_w, n2_b, t2_w, t2_b, f_w, f_b, last_w, last_b, c_w, c_b = weights
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.uniform_(-1, 1, generator=torch.Generator().manual_seed(parameter.numel()))
    x_BND = F.linear(unfolded(images(), 7), stem_w, stem_b)
    x_BND = F.batch_norm(x_BND.transpose(1, 2), None, None, norm_w, norm_b, training=True).transpose(1, 2)
    y_BDN = F.linear(x_BND.transpose(1, 2), t1_w, t1_b)
    y_BND = F.gelu(F.batch_norm(y_BDN.transpose(1, 2), None, None, n2_w, n2_b, training=True))
    y_BND = F.linear(F.linear(y_BND.transpose(1, 2), t2_w, t2_b).transpose(1, 2), f_w, f_b)
    x_BDN = F.relu(F.linear((x_BND + y_BND).transpose(1, 2), last_w, last_b))
    expected = F.linear(x_BDN.mean(dim=1), c_w, c_b)
    torch.testing.assert_close(net.train()(images()), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        config_of(*BRANCHED),
        config_of("mean tokens"),
        config_of("mean features", patch_size=4),
        config_of("linear tokens 3", "dropout 0.5", "mean tokens", patch_size=8, image_size=32),
    ],
)
def test_the_counted_parameters_and_operations_are_those_of_the_net(config: LayersConfig) -> None:
    net = build(config, 0)
    assert cost.num_parameters(config) == sum(parameter.numel() for parameter in net.parameters())
    with FlopCounterMode(display=False) as counter:
        logits = net(images(3, config.image_size))
    assert logits.shape == (3, 10)
    assert 3 * cost.flops_per_image(config) == counter.get_total_flops()


def test_a_branch_that_makes_nothing_leaves_what_it_was_given() -> None:
    net = build(config_of(("linear features 49",), "mean tokens"), 0)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.startswith("layers"):
                parameter.zero_()
    expected = net.classifier(unfolded(images(), 7).mean(dim=1))
    torch.testing.assert_close(net(images()), expected)


def test_dropout_draws_from_the_generator_given_and_only_where_noise_is_given() -> None:
    net = build(config_of("dropout 0.5", "mean tokens"), 0)
    noises = [net.draw(len(images()), torch.float32, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    drawn = [net(images(), noise) for noise in noises]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(net.train()(images()), net.eval()(images()))


def test_kaiming_weights_reach_their_bound_and_biases_stay_as_torch_draws_them() -> None:
    layers = ("linear features 400", "linear tokens 300", "mean tokens")
    default, kaiming = (build(config_of(*layers, initialisation=kind), 1) for kind in ("default", "kaiming"))
    for name, parameter in kaiming.named_parameters():
        of_default = default.get_parameter(name)
        if name.endswith("weight"):
            assert parameter.detach().abs().max() == pytest.approx((6 / parameter.shape[1]) ** 0.5, rel=0.05)
            assert of_default.detach().abs().max() == pytest.approx(parameter.shape[1] ** -0.5, rel=0.05)
        else:
            assert (
                parameter.detach().abs().max() <= default.get_parameter(name.replace("bias", "weight")).shape[1] ** -0.5
            )


def test_a_layered_configuration_comes_back_from_json_as_it_was() -> None:
    config = TrialConfig(model=config_of(*BRANCHED))
    assert TrialConfig.model_validate_json(config.model_dump_json()) == config


def test_what_is_for_patch_mlps_alone_refuses_a_layered_net() -> None:
    with pytest.raises(ConfigError, match="supports only PatchMLPs"):
        _ = TrialConfig(model=config_of("mean tokens")).patch_mlp


def test_the_layers_lie_in_the_net_in_the_order_they_are_written() -> None:
    net = build(config_of(*BRANCHED), 0)
    leaves = [type(module).__name__ for module in net.modules() if not list(module.children())]
    assert leaves == [
        *("Linear", "FeatureBatchNorm"),
        *("TokenLinear", "TokenBatchNorm", "GELU", "TokenLinear", "Linear"),
        *("TokenLinear", "ReLU", "Linear"),
    ]
    assert isinstance(net.classifier, nn.Linear)
