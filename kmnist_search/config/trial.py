"""All that one training depends on but its data and its seed, and which images there are, as frozen values.

The field names are the hyperparameter names of the study files, so each name stands in exactly one of the sections.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.fields import FieldInfo

from kmnist_search.config.base import Config, Positive, Share, Size, Strength
from kmnist_search.config.model import AnyModelConfig, LayersConfig, PatchMLPConfig, model_config
from kmnist_search.errors import ConfigError

Dataset = Literal["kmnist", "mnist", "fashion-mnist", "digits"]


class OptimizerConfig(Config):
    """How a step changes the weights. `clip_norm` 0 clips nothing.

    Weight decay acts on matrices, or on "all" weights: biases and norms, too, as torch's optimizers do by themselves.
    """

    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    learning_rate: Positive = 1e-3
    weight_decay: Strength = 0.05
    decayed: Literal["matrices", "all"] = "matrices"
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

    `split` "random" draws the same share of every class at random, by `split_seed`. Pixels from 0 to 1 are normalised
    by the mean and spread of the training images ("standard"), to -1 to 1 ("symmetric"), or left alone ("none").
    """

    dataset: Dataset = "kmnist"
    split: Literal["random"] = "random"
    split_seed: Annotated[int, Field(ge=0)] = 0
    val_share: Annotated[float, Field(gt=0, lt=1)] = 1 / 6
    normalisation: Literal["standard", "symmetric", "none"] = "standard"


class TrialConfig(Config):
    """Everything one training depends on but its data and its seed."""

    model: AnyModelConfig = PatchMLPConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    augment: AugmentConfig = AugmentConfig()
    batch: BatchConfig = BatchConfig()
    train: TrainConfig = TrainConfig()

    @property
    def patch_mlp(self) -> PatchMLPConfig:
        """The model's configuration, for what is made for PatchMLPs alone.

        Raises:
            ConfigError: it is another model.
        """
        if not isinstance(self.model, PatchMLPConfig):
            raise ConfigError("the model is written down layer by layer; this is for PatchMLPs")
        return self.model


#: The kinds of the sections whose fields a study file may search or fix.
SECTIONS: Mapping[str, Sequence[type[Config]]] = {
    "model": (PatchMLPConfig, LayersConfig),
    "optimizer": (OptimizerConfig,),
    "schedule": (ScheduleConfig,),
    "augment": (AugmentConfig,),
    "batch": (BatchConfig,),
}

#: Hyperparameter name -> the section it belongs to.
HYPERPARAMETERS: Mapping[str, str] = {
    name: section for section, kinds in SECTIONS.items() for kind in kinds for name in kind.model_fields
}


def field_of(hyperparameter: str) -> FieldInfo:
    """Return what a hyperparameter may be."""
    kinds = SECTIONS[HYPERPARAMETERS[hyperparameter]]
    return next(kind.model_fields[hyperparameter] for kind in kinds if hyperparameter in kind.model_fields)


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
    model = model_config(sections.pop("model"))
    made: dict[str, Any] = {section: SECTIONS[section][0](**values) for section, values in sections.items()}
    return TrialConfig(model=model, train=train, **made)
