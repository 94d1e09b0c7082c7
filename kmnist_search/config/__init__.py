"""The configuration of one training as frozen values: model, optimizer, schedule, augmentation, batches, data."""

from kmnist_search.config.base import Config, Positive, Share, describe
from kmnist_search.config.model import (
    NUM_CLASSES,
    AnyModelConfig,
    LayersConfig,
    ModelConfig,
    PatchMLPConfig,
    model_config,
)
from kmnist_search.config.trial import (
    HYPERPARAMETERS,
    SECTIONS,
    AugmentConfig,
    BatchConfig,
    DataConfig,
    Dataset,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
    TrialConfig,
    field_of,
    trial_config,
)

__all__ = [
    "HYPERPARAMETERS",
    "NUM_CLASSES",
    "SECTIONS",
    "AnyModelConfig",
    "AugmentConfig",
    "BatchConfig",
    "Config",
    "DataConfig",
    "Dataset",
    "LayersConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PatchMLPConfig",
    "Positive",
    "ScheduleConfig",
    "Share",
    "TrainConfig",
    "TrialConfig",
    "describe",
    "field_of",
    "model_config",
    "trial_config",
]
