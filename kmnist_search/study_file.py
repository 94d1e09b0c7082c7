"""What a study is: its tables as checked, frozen values. Knows nothing of files or of optuna."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from kmnist_search.config import Config, DataConfig, TrainConfig, TrialConfig, trial_config
from kmnist_search.space import Hyperparameter, Suggester


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class SamplerConfig(Config):
    """Who proposes configurations: "tpe" after `startup_trials` random ones, or "random" always."""

    name: Literal["tpe", "random"] = "tpe"
    startup_trials: Annotated[int, Field(ge=1)] = 10


class PrunerConfig(Config):
    """Who ends hopeless trials: none before `min_epochs`; at a rung about one in `reduction_factor` goes on."""

    name: Literal["hyperband", "successive_halving", "median", "none"] = "hyperband"
    min_epochs: Annotated[int, Field(ge=1)] = 1
    reduction_factor: Annotated[int, Field(ge=2)] = 3


class StudyTable(Config):
    """The table [study].

    A trial whose worker is gone for `lease_seconds` goes back to the queue, at most `max_retries` times.
    """

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^\w[\w.-]*$")]
    metric: Literal["val_accuracy", "val_loss"] = "val_accuracy"
    sampler: Annotated[SamplerConfig, BeforeValidator(_named)] = SamplerConfig()
    pruner: Annotated[PrunerConfig, BeforeValidator(_named)] = PrunerConfig()
    seed: Annotated[int, Field(ge=0)] = 0
    trials: Annotated[int, Field(ge=1)] = 100
    max_retries: Annotated[int, Field(ge=0)] = 3
    lease_seconds: Annotated[float, Field(ge=1)] = 120.0
    meant_for: Literal["any", "gpu"] = "any"

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        return "maximize" if self.metric == "val_accuracy" else "minimize"


class StudyFile(Config):
    """A whole study file, checked."""

    study: StudyTable
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    fixed: dict[str, Any] = Field(default_factory=dict)
    space: dict[str, Hyperparameter] = Field(default_factory=dict)
    enqueue: tuple[dict[str, Any], ...] = ()

    def suggest(self, trial: Suggester) -> TrialConfig:
        """Return the configuration of one trial: the searched hyperparameters from `trial`, the others as fixed."""
        searched = {name: hyperparameter.suggest(trial, name) for name, hyperparameter in self.space.items()}
        return trial_config({**self.fixed, **searched}, self.train)

    def middle(self) -> TrialConfig:
        """Return a configuration of middling size, to estimate costs by."""
        searched = {name: spec.values()[len(spec.values()) // 2] for name, spec in self.space.items()}
        return trial_config({**self.fixed, **searched}, self.train)
