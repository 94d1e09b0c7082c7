"""The configuration of one training, in sections, and of the data.

The field names are the hyperparameter names of the study files, so each name is in exactly one section.
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
    """The optimizer. `clip_norm` 0 turns gradient clipping off.

    `decayed`: weight decay acts on "matrices" only, or on "all" parameters, biases and norms included, as in torch's
    optimizers by default.
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
    """The learning-rate schedule: a linear warm-up, then a cosine to 0, steps, cuts on a plateau, or constant.

    "wsd" (warm-up, stable, decay) is constant until the last fifth of the training, and then linear to 0.
    `step_epochs` and `plateau_patience` are epochs; each cut multiplies the rate by `decay_factor`.
    """

    schedule: Literal["cosine", "wsd", "step", "plateau", "constant"] = "cosine"
    warmup_share: Share = 0.1
    step_epochs: Size = 20
    decay_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    plateau_patience: Annotated[int, Field(ge=0)] = 10
    plateau_threshold: Strength = 1e-4


class AugmentConfig(Config):
    """Augmentation, drawn anew for each image and step. A strength of 0 turns a transformation off.

    `shift` and `elastic` are in pixels, `rotate` and `shear` in degrees, `scale` is a share of the size, `cutout` the
    side of the erased square in pixels, `mixup` the parameter of its beta distribution.
    """

    shift: Annotated[float, Field(ge=0, le=14)] = 0.0
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.0
    shear: Annotated[float, Field(ge=0, lt=90)] = 0.0
    elastic: Annotated[float, Field(ge=0, le=14)] = 0.0
    cutout: Annotated[int, Field(ge=0, le=28)] = 0
    mixup: Strength = 0.0


class BatchConfig(Config):
    """The batch size and the label smoothing."""

    batch_size: Annotated[int, Field(ge=2)] = 256
    label_smoothing: Share = 0.1


class TrainConfig(Config):
    """The number of epochs and the number format; never searched.

    `precision` is of the matrix products. "auto" is bfloat16 on a GPU or CPU that multiplies it itself, else float32.
    """

    epochs: Annotated[int, Field(ge=1)] = 20
    precision: Literal["auto", "float32", "bfloat16"] = "auto"


class DataConfig(Config):
    """The data set, its normalisation, and the part of the training set that is held out for validation.

    `split` "random" draws the same share of every class at random, by `split_seed`; with a `val_share` of 0 nothing is
    held out. Pixels from 0 to 1 are normalised
    by the mean and standard deviation of the training images ("standard"), to the range -1 to 1 ("symmetric"), or not
    at all ("none").
    """

    dataset: Dataset = "kmnist"
    split: Literal["random"] = "random"
    split_seed: Annotated[int, Field(ge=0)] = 0
    val_share: Share = 1 / 6
    normalisation: Literal["standard", "symmetric", "none"] = "standard"

    def whole(self) -> "DataConfig":
        """Return the same images with nothing held out."""
        return self.model_copy(update={"val_share": 0.0, "split_seed": 0})


class TrialConfig(Config):
    """Everything that a training depends on, except its data and its seed."""

    model: AnyModelConfig = PatchMLPConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    augment: AugmentConfig = AugmentConfig()
    batch: BatchConfig = BatchConfig()
    train: TrainConfig = TrainConfig()

    @property
    def patch_mlp(self) -> PatchMLPConfig:
        """The model's configuration, for code that supports only PatchMLPs.

        Raises:
            ConfigError: it is another model.
        """
        if not isinstance(self.model, PatchMLPConfig):
            raise ConfigError("the model is written layer by layer, but this supports only PatchMLPs")
        return self.model


#: The classes of each section whose fields a study file may search or fix.
SECTIONS: Mapping[str, Sequence[type[Config]]] = {
    "model": (PatchMLPConfig, LayersConfig),
    "optimizer": (OptimizerConfig,),
    "schedule": (ScheduleConfig,),
    "augment": (AugmentConfig,),
    "batch": (BatchConfig,),
}

#: Hyperparameter name -> its section.
HYPERPARAMETERS: Mapping[str, str] = {
    name: section for section, kinds in SECTIONS.items() for kind in kinds for name in kind.model_fields
}


def field_of(hyperparameter: str) -> FieldInfo:
    """Return the field of a hyperparameter: its type, bounds and default."""
    kinds = SECTIONS[HYPERPARAMETERS[hyperparameter]]
    return next(kind.model_fields[hyperparameter] for kind in kinds if hyperparameter in kind.model_fields)


def trial_config(hyperparameters: Mapping[str, Any], train: TrainConfig) -> TrialConfig:
    """Return a configuration from flat hyperparameters; those not named keep their defaults.

    Raises:
        ConfigError: a name is unknown, or the values do not fit together.
    """
    sections: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for name, value in hyperparameters.items():
        if name not in HYPERPARAMETERS:
            raise ConfigError(f"there is no hyperparameter {name!r}")
        sections[HYPERPARAMETERS[name]][name] = value
    model = model_config(sections.pop("model"))
    made: dict[str, Any] = {section: SECTIONS[section][0](**values) for section, values in sections.items()}
    return TrialConfig(model=model, train=train, **made)


def hyperparameters_of(config: TrialConfig, *, with_defaults: bool = False) -> dict[str, Any]:
    """Return the flat hyperparameters of a configuration: `trial_config` in reverse.

    Those that have their defaults are left out, unless `with_defaults`.
    """
    sections = (
        getattr(config, section).model_dump(mode="json", exclude_defaults=not with_defaults) for section in SECTIONS
    )
    return {name: value for section in sections for name, value in section.items()}
