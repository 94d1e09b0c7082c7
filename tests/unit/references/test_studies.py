"""The reference systems as their reports print them: every layer, its shape, and the number of weights."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kmnist_search.config import LayersConfig, cost
from kmnist_search.model import build
from kmnist_search.study_file.builtin import builtin_studies, find_study_file
from kmnist_search.study_file.parser import load
from kmnist_search.study_file.schema import SearchFile

pytestmark = pytest.mark.usefixtures("one_thread")

REFERENCES = [name for name in builtin_studies() if name.startswith("references/")]


def study(name: str) -> SearchFile:
    return load(find_study_file(f"references/{name}"))


def model_config(name: str) -> LayersConfig:
    config = study(name).middle().model
    assert isinstance(config, LayersConfig)
    return config


def printed(name: str) -> list[str]:
    """Each layer with the shape of one image after it, tokens x features, as hooks on the real net see them."""
    config, lines = model_config(name), []

    def note(module: nn.Module, _inputs: Any, output: Tensor) -> None:
        share = getattr(module, "share", "")
        kind = type(module).__name__
        shape = f"{output.shape[0]}x{output.shape[2]}" if output.ndim == 3 else f"{output.shape[1]}"
        lines.append(f"{kind}{share} {shape}")

    net = build(config, 0).eval()
    for module in net.modules():
        if not list(module.children()):
            module.register_forward_hook(note)
    with torch.no_grad():
        net(torch.zeros(2, config.image_size, config.image_size))
    return lines


def linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def norm(channels: int) -> int:
    return 2 * channels


def weights(name: str) -> int:
    net = build(model_config(name), 0)
    counted = sum(parameter.numel() for parameter in net.parameters())
    assert counted == cost.num_parameters(model_config(name))
    return counted


def test_s0_is_layer_by_layer_the_printed_net() -> None:
    assert printed("s0") == [
        "Linear 16x300",  # the stem, on 16 patches of 49 pixels
        *("Linear 16x256", "ReLU 16x256", "Linear 16x300"),
        *("TokenLinear 256x300", "ReLU 256x300", "TokenLinear 300x300"),  # on the transposed input
        "Linear 10",  # after the mean over the first axis, the features
    ]
    by_hand = linear(49, 300) + linear(300, 256) + linear(256, 300) + linear(16, 256) + linear(256, 300)
    assert weights("s0") == by_hand + linear(300, 10) == 253_618


def test_s3_is_layer_by_layer_the_printed_net() -> None:
    assert printed("s3") == [
        *("Linear 49x256", "TokenBatchNorm 49x256"),
        *("TokenLinear 512x256", "ReLU 512x256", "MaskedDropout0.1 512x256", "TokenLinear 256x256"),
        *("Linear 256x128", "ReLU 256x128", "Linear 256x64", "TokenBatchNorm 256x64"),
        *("TokenLinear 64x64", "ReLU 64x64", "MaskedDropout0.2 64x64", "TokenLinear 128x64"),
        *("Linear 128x32", "ReLU 128x32", "Linear 128x16", "TokenBatchNorm 128x16"),
        "Linear 10",
    ]
    block1 = linear(49, 512) + linear(512, 256) + linear(256, 128) + linear(128, 64) + norm(256)
    block2 = linear(256, 64) + linear(64, 128) + linear(64, 32) + linear(32, 16) + norm(128)
    assert weights("s3") == linear(16, 256) + norm(49) + block1 + block2 + linear(16, 10) == 230_844


@pytest.mark.parametrize("name", ["s1", "s1-64", "s1-128", "s1-256"])
def test_s1_has_the_widths_of_s3_a_norm_after_its_stem_and_dropout_in_every_mlp(name: str) -> None:
    assert printed(name) == [
        *("Linear 49x256", "TokenBatchNorm 49x256"),
        *("TokenLinear 512x256", "ReLU 512x256", "MaskedDropout0.1 512x256", "TokenLinear 256x256"),
        *("Linear 256x128", "ReLU 256x128", "MaskedDropout0.1 256x128", "Linear 256x64"),
        *("TokenLinear 64x64", "ReLU 64x64", "MaskedDropout0.2 64x64", "TokenLinear 128x64"),
        *("Linear 128x32", "ReLU 128x32", "MaskedDropout0.2 128x32", "Linear 128x16"),
        "Linear 10",
    ]
    assert weights(name) == weights("s3") - norm(256) - norm(128)


S2: Sequence[tuple[str, int, int, Sequence[int]]] = [
    ("s2-1", 2, 128, (64,)),
    ("s2-2", 4, 128, (64,)),
    ("s2-3", 8, 128, (64,)),
    ("s2-4", 4, 256, (64, 128, 256)),
    ("s2-5", 8, 256, (64, 128, 256)),
    ("s2", 4, 256, (64, 64, 128, 128, 256, 256)),
]


@pytest.mark.parametrize(("name", "patch", "dim", "hidden"), S2)
def test_s2_has_blocks_of_a_token_and_a_channel_mlp(name: str, patch: int, dim: int, hidden: Sequence[int]) -> None:
    tokens = (32 // patch) ** 2
    expected = [f"Linear {tokens}x{dim}", f"FeatureBatchNorm {tokens}x{dim}", f"ReLU {tokens}x{dim}"]
    by_hand = linear(patch**2, dim) + norm(dim)
    for width in hidden:
        expected += [f"{layer} {width}x{dim}" for layer in ("TokenLinear", "TokenBatchNorm", "ReLU")]
        expected += [f"TokenLinear {tokens}x{dim}"]
        expected += [f"{layer} {tokens}x{width}" for layer in ("Linear", "FeatureBatchNorm", "ReLU")]
        expected += [f"Linear {tokens}x{dim}"]
        by_hand += linear(tokens, width) + norm(width) + linear(width, tokens)
        by_hand += linear(dim, width) + norm(width) + linear(width, dim)
    assert printed(name) == [*expected, "Linear 10"]
    assert weights(name) == by_hand + linear(dim, 10)


def test_each_block_of_s2_is_beside_one_skip() -> None:
    branches = [layer for layer in model_config("s2").layers if isinstance(layer, tuple)]
    assert [branch[0] for branch in branches] == [f"linear tokens {width}" for width in (64, 64, 128, 128, 256, 256)]


def test_s4_is_layer_by_layer_the_printed_net() -> None:
    assert printed("s4") == ["Linear 1x128", "ReLU 1x128", "Linear 1x64", "ReLU 1x64", "Linear 10"]
    assert weights("s4") == linear(784, 128) + linear(128, 64) + linear(64, 10) == 109_386


@pytest.mark.parametrize("name", REFERENCES)
def test_a_reference_is_a_fixed_study_of_three_seeds_without_pruning(name: str) -> None:
    file = load(find_study_file(name))
    assert not file.space
    assert (file.study.trials, file.study.pruner.name) == (3, "none")
    assert file.study.name == name.removeprefix("references/").upper()


RECIPES = {
    "s0": ("kmnist", 28, "adam", 0.0025, 0.0, 256, 50, "constant"),
    "s1": ("kmnist", 28, "adam", 0.001, 0.0005, 128, 20, "plateau"),
    "s1-64": ("kmnist", 28, "adam", 0.01, 0.0005, 64, 20, "plateau"),
    "s1-128": ("kmnist", 28, "adam", 0.01, 0.0005, 128, 30, "plateau"),
    "s1-256": ("kmnist", 28, "adam", 0.001, 0.0005, 256, 30, "plateau"),
    **{f"s2-{number}": ("kmnist", 32, "adam", 0.001, 0.0001, 128, 10, "constant") for number in range(1, 6)},
    "s2": ("kmnist", 32, "sgd", 0.05, 0.0001, 128, 50, "step"),
    "s3": ("fashion-mnist", 28, "adam", 0.001, 0.0005, 128, 30, "plateau"),
    "s4": ("mnist", 28, "adam", 0.001, 0.0, 256, 5, "constant"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_reference_is_trained_as_its_report_says(name: str) -> None:
    file = study(name)
    config = file.middle()
    optimizer, schedule = config.optimizer, config.schedule
    assert (
        file.data.dataset,
        config.model.image_size,
        optimizer.optimizer,
        optimizer.learning_rate,
        optimizer.weight_decay,
        config.batch.batch_size,
        config.train.epochs,
        schedule.schedule,
    ) == RECIPES[name]
    # What their torch does when it is told nothing.
    assert (optimizer.beta2, optimizer.clip_norm, schedule.warmup_share) == (
        0.99 if optimizer.optimizer == "sgd" else 0.999,
        0.0,
        0.0,
    )
    assert optimizer.decayed == "all" or not optimizer.weight_decay
    assert config.batch.label_smoothing == 0.0


def test_the_recipes_of_all_references_are_checked() -> None:
    assert {f"references/{name}" for name in RECIPES} == set(REFERENCES)


def test_the_schedules_of_s2_and_s3_are_those_of_their_reports() -> None:
    s2, s3 = study("s2").middle(), study("s3").middle()
    assert (s2.schedule.step_epochs, s2.schedule.decay_factor, s2.optimizer.momentum) == (20, 0.7, 0.0)
    assert (s3.schedule.plateau_patience, s3.schedule.plateau_threshold) == (15, 1e-8)
    assert model_config("s3").initialisation == "kaiming"


def test_s4_sees_rotated_and_shifted_images() -> None:
    file = study("s4")
    augment = file.middle().augment
    assert (augment.rotate, augment.shift, file.data.normalisation) == (10.0, 2.0, "symmetric")
