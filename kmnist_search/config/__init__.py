"""Frozen values that say all there is to know about one training. Knows nothing of studies, torch or files."""

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
