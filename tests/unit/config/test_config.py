"""Tests of config/: frozen values that check themselves, their digest, and the one place of each name."""

from collections import Counter
from typing import Any, Literal

import pytest
from hypothesis import given, settings, strategies as st
from pydantic import ValidationError

from kmnist_search.config import (
    HYPERPARAMETERS,
    SECTIONS,
    AugmentConfig,
    BatchConfig,
    Config,
    DataConfig,
    LayersConfig,
    OptimizerConfig,
    PatchMLPConfig,
    ScheduleConfig,
    TrainConfig,
    TrialConfig,
    trial_config,
)
from kmnist_search.errors import ConfigError

ALL_CONFIGS = (
    PatchMLPConfig,
    OptimizerConfig,
    ScheduleConfig,
    AugmentConfig,
    BatchConfig,
    TrainConfig,
    DataConfig,
    TrialConfig,
)

NAN, INF = float("nan"), float("inf")

BAD_VALUES: list[tuple[type[Config], str, Any]] = [
    (PatchMLPConfig, "image_size", 30),
    (PatchMLPConfig, "image_size", "28"),
    (PatchMLPConfig, "patch_size", 0),
    (PatchMLPConfig, "patch_size", 5),
    (PatchMLPConfig, "patch_size", 4.0),
    (PatchMLPConfig, "dim", 0),
    (PatchMLPConfig, "dim", -8),
    (PatchMLPConfig, "dim", 12.5),
    (PatchMLPConfig, "dim", True),
    (PatchMLPConfig, "token_width", 0),
    (PatchMLPConfig, "token_width", "wide"),
    (PatchMLPConfig, "token_width", [16, 0, 16, 16]),
    (PatchMLPConfig, "channel_width", -1),
    (PatchMLPConfig, "channel_width", 1.5),
    (PatchMLPConfig, "num_blocks", 0),
    (PatchMLPConfig, "num_blocks", 65),
    (PatchMLPConfig, "norm", "group"),
    (PatchMLPConfig, "activation", "tanh"),
    (PatchMLPConfig, "skip", 1),
    (PatchMLPConfig, "skip", "true"),
    (PatchMLPConfig, "dropout", 1.0),
    (PatchMLPConfig, "dropout", -0.1),
    (PatchMLPConfig, "dropout", NAN),
    (PatchMLPConfig, "drop_path", 1.0),
    (OptimizerConfig, "optimizer", "lion"),
    (OptimizerConfig, "learning_rate", 0.0),
    (OptimizerConfig, "learning_rate", INF),
    (OptimizerConfig, "learning_rate", NAN),
    (OptimizerConfig, "learning_rate", "0.1"),
    (OptimizerConfig, "learning_rate", True),
    (OptimizerConfig, "weight_decay", -0.1),
    (OptimizerConfig, "momentum", 1.0),
    (OptimizerConfig, "beta2", 1.0),
    (OptimizerConfig, "clip_norm", -1.0),
    (OptimizerConfig, "clip_norm", INF),
    (OptimizerConfig, "ema_decay", 1.0),
    (ScheduleConfig, "schedule", "linear"),
    (ScheduleConfig, "warmup_share", 1.0),
    (ScheduleConfig, "step_epochs", 0),
    (ScheduleConfig, "decay_factor", 0.0),
    (ScheduleConfig, "decay_factor", 1.0),
    (ScheduleConfig, "plateau_patience", -1),
    (ScheduleConfig, "plateau_threshold", NAN),
    (AugmentConfig, "shift", 14.5),
    (AugmentConfig, "shift", -1.0),
    (AugmentConfig, "rotate", 181.0),
    (AugmentConfig, "scale", 1.0),
    (AugmentConfig, "shear", 90.0),
    (AugmentConfig, "elastic", 15.0),
    (AugmentConfig, "cutout", 29),
    (AugmentConfig, "cutout", 1.5),
    (AugmentConfig, "mixup", -0.2),
    (AugmentConfig, "mixup", INF),
    (BatchConfig, "batch_size", 1),
    (BatchConfig, "batch_size", None),
    (BatchConfig, "label_smoothing", 1.0),
    (TrainConfig, "epochs", 0),
    (TrainConfig, "precision", "float16"),
    (DataConfig, "dataset", "cifar10"),
    (DataConfig, "split", "writer"),
    (DataConfig, "split_seed", -1),
    (DataConfig, "val_share", -0.1),
    (DataConfig, "val_share", 1.0),
    (DataConfig, "normalisation", "zca"),
    (OptimizerConfig, "decayed", "some"),
    (LayersConfig, "layers", ["linear features 0", "mean tokens"]),
    (LayersConfig, "layers", "relu"),
    (LayersConfig, "layers", [3, "mean tokens"]),
    (LayersConfig, "layers", ["mean tokens", "relu"]),
    (LayersConfig, "layers", [["mean features"], "mean tokens"]),
    (LayersConfig, "layers", ["dropout 1", "mean tokens"]),
    (LayersConfig, "initialisation", "he"),
]

#: Another valid value for every field that a trial depends on.
OTHER_VALUES: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 7,
    "dim": 129,
    "token_width": 65,
    "channel_width": (256, 256, 256, 257),
    "num_blocks": 5,
    "norm": "batch",
    "activation": "relu",
    "skip": False,
    "dropout": 0.1,
    "drop_path": 0.1,
    "layers": ("linear features 8", "mean tokens"),
    "initialisation": "kaiming",
    "optimizer": "sgd",
    "learning_rate": 1.0000001e-3,
    "weight_decay": 0.06,
    "decayed": "all",
    "momentum": 0.8,
    "beta2": 0.98,
    "clip_norm": 0.0,
    "ema_decay": 0.9,
    "schedule": "step",
    "warmup_share": 0.0,
    "step_epochs": 21,
    "decay_factor": 0.2,
    "plateau_patience": 11,
    "plateau_threshold": 1e-3,
    "shift": 1.0,
    "rotate": 1.0,
    "scale": 0.1,
    "shear": 1.0,
    "elastic": 1.0,
    "cutout": 1,
    "mixup": 0.1,
    "batch_size": 255,
    "label_smoothing": 0.0,
}


@pytest.mark.parametrize(("config", "key", "value"), BAD_VALUES)
def test_a_bad_value_gives_one_error_that_names_key_and_value(config: type[Config], key: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**{key: value})
    message = str(caught.value)
    assert key in message
    assert repr(value) in message or f"{key} {value}" in message
    assert "pydantic" not in message


def test_every_hyperparameter_has_a_bad_value_in_these_tests() -> None:
    assert {key for _, key, _ in BAD_VALUES} >= HYPERPARAMETERS.keys()


def test_a_patch_size_that_does_not_divide_is_refused_with_the_sizes_that_do() -> None:
    with pytest.raises(ConfigError) as caught:
        PatchMLPConfig(image_size=32, patch_size=7)
    assert str(caught.value) == "patch_size 7 does not divide image_size 32: use one of [1, 2, 4, 8, 16, 32]"


@pytest.mark.parametrize("name", ["token_width", "channel_width"])
def test_a_list_of_widths_of_another_length_than_the_blocks_is_refused(name: str) -> None:
    values: dict[str, Any] = {name: (8, 16), "num_blocks": 3}
    with pytest.raises(ConfigError) as caught:
        PatchMLPConfig(**values)
    assert str(caught.value) == f"{name} lists 2 widths for num_blocks = 3"


def test_drop_path_without_a_skip_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        PatchMLPConfig(skip=False, drop_path=0.1)
    assert str(caught.value) == "drop_path needs skip = true: without a skip connection, a dropped block has no output"


def test_two_bad_values_are_both_named() -> None:
    values: dict[str, Any] = {"dim": 0, "norm": "group"}
    with pytest.raises(ConfigError) as caught:
        PatchMLPConfig(**values)
    assert str(caught.value) == (
        "dim: input should be greater than or equal to 1, got 0; "
        "norm: input should be 'layer', 'batch' or 'none', got 'group'"
    )


@pytest.mark.parametrize("config", ALL_CONFIGS)
def test_an_unknown_name_is_refused(config: type[Config]) -> None:
    with pytest.raises(ConfigError, match=r"^surprise: extra inputs are not permitted, got 1$"):
        config(surprise=1)


@pytest.mark.parametrize("config", ALL_CONFIGS)
def test_a_config_is_frozen(config: type[Config]) -> None:
    made = config()
    for name in config.model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(made, name, getattr(made, name))
    assert made == config()


def test_whole_numbers_are_taken_where_floats_are_wanted() -> None:
    assert OptimizerConfig(learning_rate=1, weight_decay=0) == OptimizerConfig(learning_rate=1.0, weight_decay=0.0)


def test_a_list_of_widths_is_one_width_for_each_block() -> None:
    model = PatchMLPConfig.model_validate({"num_blocks": 3, "token_width": [8, 16, 24], "channel_width": 32})
    assert model.token_widths == (8, 16, 24)
    assert model.channel_widths == (32, 32, 32)


@pytest.mark.parametrize(
    ("image_size", "patch_size", "tokens"), [(28, 4, 49), (28, 7, 16), (28, 28, 1), (32, 4, 64), (32, 1, 1024)]
)
def test_the_number_of_tokens_is_that_of_the_patches(image_size: Literal[28, 32], patch_size: int, tokens: int) -> None:
    assert PatchMLPConfig(image_size=image_size, patch_size=patch_size).num_tokens == tokens


def test_each_hyperparameter_name_stands_in_exactly_one_section() -> None:
    names = Counter(
        name for kinds in SECTIONS.values() for name in {name for kind in kinds for name in kind.model_fields}
    )
    assert set(names.values()) == {1}
    assert names.keys() == HYPERPARAMETERS.keys()
    assert all(
        any(name in kind.model_fields for kind in SECTIONS[section]) for name, section in HYPERPARAMETERS.items()
    )


def test_what_is_never_searched_is_no_hyperparameter() -> None:
    assert not HYPERPARAMETERS.keys() & {*TrainConfig.model_fields, *DataConfig.model_fields}


def test_flat_hyperparameters_are_sorted_into_their_sections() -> None:
    made = trial_config({"dim": 64, "learning_rate": 0.01, "shift": 2, "batch_size": 32}, TrainConfig(epochs=3))
    assert made == TrialConfig(
        model=PatchMLPConfig(dim=64),
        optimizer=OptimizerConfig(learning_rate=0.01),
        augment=AugmentConfig(shift=2.0),
        batch=BatchConfig(batch_size=32),
        train=TrainConfig(epochs=3),
    )


def test_an_unknown_flat_hyperparameter_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^there is no hyperparameter 'epochs'$"):
        trial_config({"epochs": 3}, TrainConfig())


def test_equal_configurations_share_their_digest() -> None:
    one = trial_config({"dim": 64, "shift": 2}, TrainConfig())
    same = trial_config({"shift": 2.0, "dim": 64, "norm": "layer"}, TrainConfig())
    assert one == same
    assert one.digest == same.digest
    assert len(one.digest) == 12
    assert int(one.digest, 16) >= 0


def test_the_digest_changes_with_every_hyperparameter() -> None:
    assert OTHER_VALUES.keys() == HYPERPARAMETERS.keys()
    beside = {"initialisation": {"layers": OTHER_VALUES["layers"]}}
    digests = {
        trial_config({**beside.get(name, {}), name: value}, TrainConfig()).digest
        for name, value in OTHER_VALUES.items()
    }
    assert len(digests | {TrialConfig().digest}) == len(OTHER_VALUES) + 1


@pytest.mark.parametrize("train", [TrainConfig(epochs=21), TrainConfig(precision="float32")])
def test_the_digest_changes_with_how_long_and_how_precisely_is_trained(train: TrainConfig) -> None:
    assert TrialConfig(train=train).digest != TrialConfig().digest


@settings(max_examples=25, deadline=None)
@given(st.floats(1e-6, 1.0), st.floats(1e-6, 1.0))
def test_digests_are_equal_exactly_where_configurations_are(one: float, other: float) -> None:
    first = TrialConfig(optimizer=OptimizerConfig(learning_rate=one))
    second = TrialConfig(optimizer=OptimizerConfig(learning_rate=other))
    assert (first.digest == second.digest) == (first == second)
