"""Frozen values that say all there is to know about one training. Knows nothing of studies, torch or files.

Every value checks itself when it is made. The field names are the hyperparameter names of the study files, so each
name stands in exactly one of the sections here.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from kmnist_search.errors import ConfigError

NUM_CLASSES = 10


def _widths(value: Any) -> int | tuple[int, ...]:
    widths = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not widths or any(type(width) is not int or width < 1 for width in widths):
        raise ValueError("input should be a whole number above 0, or a list of them, one for each block")
    return value if isinstance(value, int) else widths


Size = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Strength = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Dataset = Literal["kmnist", "mnist", "fashion-mnist", "digits"]
#: One width for all blocks, or one for each block.
Widths = Annotated[int | tuple[int, ...], BeforeValidator(_widths)]


class Config(BaseModel):
    """A frozen value: refuses unknown names and values of the wrong type. Raises ConfigError when made wrongly."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError("; ".join(describe(error))) from None


def describe(error: ValidationError) -> list[str]:
    """Return one line for each problem pydantic found: the key, what is wrong with it, and the value given."""
    lines = []
    for problem in error.errors(include_url=False):
        key = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        message = message[0].lower() + message[1:]
        given = "" if isinstance(problem["input"], dict) else f", got {problem['input']!r}"
        lines.append(f"{key}: {message}{given}" if key else f"{message}{given}")
    return lines


class ModelConfig(Config):
    """Shape of a PatchMLP: a stem over patches, blocks that mix tokens then channels, mean, classifier."""

    image_size: Literal[28, 32] = 28
    patch_size: Size = 4
    dim: Size = 128
    token_width: Widths = 64
    channel_width: Widths = 256
    num_blocks: Annotated[int, Field(ge=1, le=64)] = 4
    norm: Literal["layer", "batch", "none"] = "layer"
    activation: Literal["gelu", "relu"] = "gelu"
    skip: bool = True
    dropout: Share = 0.0
    drop_path: Share = 0.0

    @model_validator(mode="after")
    def _shapes_fit(self) -> "ModelConfig":
        if self.image_size % self.patch_size:
            fitting = [size for size in range(1, self.image_size + 1) if self.image_size % size == 0]
            raise ValueError(
                f"patch_size {self.patch_size} does not divide image_size {self.image_size}: use one of {fitting}"
            )
        for name in ("token_width", "channel_width"):
            widths = getattr(self, name)
            if isinstance(widths, tuple) and len(widths) != self.num_blocks:
                raise ValueError(f"{name} lists {len(widths)} widths for num_blocks = {self.num_blocks}")
        if self.drop_path and not self.skip:
            raise ValueError("drop_path needs skip = true: without a skip the dropped block would pass nothing on")
        return self

    @property
    def num_tokens(self) -> int:
        """Patches an image."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def token_widths(self) -> tuple[int, ...]:
        """Hidden width of the token-mixing MLP, block by block."""
        return self.token_width if isinstance(self.token_width, tuple) else (self.token_width,) * self.num_blocks

    @property
    def channel_widths(self) -> tuple[int, ...]:
        """Hidden width of the channel-mixing MLP, block by block."""
        return self.channel_width if isinstance(self.channel_width, tuple) else (self.channel_width,) * self.num_blocks


class OptimizerConfig(Config):
    """How a step changes the weights. Weight decay acts on matrices only; `clip_norm` 0 clips nothing."""

    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    learning_rate: Positive = 1e-3
    weight_decay: Strength = 0.05
    momentum: Share = 0.9
    beta2: Share = 0.99
    clip_norm: Strength = 1.0
    ema_decay: Share = 0.0


class ScheduleConfig(Config):
    """How the learning rate moves: a linear warm-up, then a cosine to 0, steps, or cuts on a plateau.

    `step_epochs`, `plateau_patience` count epochs; `decay_factor` is what one cut multiplies the rate by.
    """

    schedule: Literal["cosine", "step", "plateau", "constant"] = "cosine"
    warmup_share: Share = 0.1
    step_epochs: Size = 20
    decay_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    plateau_patience: Annotated[int, Field(ge=0)] = 10
    plateau_threshold: Strength = 1e-4


class AugmentConfig(Config):
    """Augmentation on the device, drawn anew for each image and step; a strength of 0 is off.

    `shift` and `elastic` are pixels, `rotate` and `shear` degrees, `scale` a share of the size, `cutout` the side of
    the erased square in pixels, `mixup` the parameter of its beta distribution.
    """

    shift: Annotated[float, Field(ge=0, le=14)] = 0.0
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.0
    shear: Annotated[float, Field(ge=0, lt=90)] = 0.0
    elastic: Annotated[float, Field(ge=0, le=14)] = 0.0
    cutout: Annotated[int, Field(ge=0, le=28)] = 0
    mixup: Strength = 0.0


class BatchConfig(Config):
    """What one step trains on."""

    batch_size: Annotated[int, Field(ge=2)] = 256
    label_smoothing: Share = 0.1


class TrainConfig(Config):
    """How long, and in which number format; never searched.

    `precision` "auto" is bfloat16 on a GPU that has it and float32 elsewhere.
    """

    epochs: Annotated[int, Field(ge=1)] = 20
    precision: Literal["auto", "float32", "bfloat16"] = "auto"


class DataConfig(Config):
    """Which images, and how a part of the training set is held out for validation.

    `split` "random" draws the same share of every class at random, by `split_seed`.
    """

    dataset: Dataset = "kmnist"
    split: Literal["random"] = "random"
    split_seed: Annotated[int, Field(ge=0)] = 0
    val_share: Annotated[float, Field(gt=0, lt=1)] = 1 / 6


class TrialConfig(Config):
    """Everything one training depends on but its data and its seed."""

    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    augment: AugmentConfig = AugmentConfig()
    batch: BatchConfig = BatchConfig()
    train: TrainConfig = TrainConfig()

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that two equal configurations share."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]


#: The sections whose fields a study file may search or fix.
SECTIONS: Mapping[str, type[Config]] = {
    "model": ModelConfig,
    "optimizer": OptimizerConfig,
    "schedule": ScheduleConfig,
    "augment": AugmentConfig,
    "batch": BatchConfig,
}

#: Hyperparameter name -> the section it belongs to.
HYPERPARAMETERS: Mapping[str, str] = {
    name: section for section, config in SECTIONS.items() for name in config.model_fields
}


def trial_config(hyperparameters: Mapping[str, Any], train: TrainConfig) -> TrialConfig:
    """Sort flat hyperparameters into their sections; those not named keep their defaults.

    Raises:
        ConfigError: a name is unknown, or the values do not fit together.
    """
    sections: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for name, value in hyperparameters.items():
        if name not in HYPERPARAMETERS:
            raise ConfigError(f"no hyperparameter is called {name!r}")
        sections[HYPERPARAMETERS[name]][name] = value
    made: dict[str, Any] = {section: SECTIONS[section](**values) for section, values in sections.items()}
    return TrialConfig(train=train, **made)
