"""The configuration of one training as frozen values: model, optimizer, schedule, augmentation, batches, data."""

from kmnist_search.config.base import Config as Config, Positive as Positive, Share as Share, describe as describe
from kmnist_search.config.model import (
    BLOCK_WIDTHS as BLOCK_WIDTHS,
    NUM_CLASSES as NUM_CLASSES,
    AnyModelConfig as AnyModelConfig,
    LayersConfig as LayersConfig,
    ModelConfig as ModelConfig,
    PatchMLPConfig as PatchMLPConfig,
    model_config as model_config,
)
from kmnist_search.config.trial import (
    HYPERPARAMETERS as HYPERPARAMETERS,
    SECTIONS as SECTIONS,
    AugmentConfig as AugmentConfig,
    BatchConfig as BatchConfig,
    DataConfig as DataConfig,
    Dataset as Dataset,
    OptimizerConfig as OptimizerConfig,
    ScheduleConfig as ScheduleConfig,
    TrainConfig as TrainConfig,
    TrialConfig as TrialConfig,
    field_of as field_of,
    hyperparameters_of as hyperparameters_of,
    trial_config as trial_config,
)
