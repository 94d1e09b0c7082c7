"""What a study is: its tables as checked, frozen values. Knows nothing of files or of optuna."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from kmnist_search.config import Config, DataConfig, TrainConfig, TrialConfig, trial_config
from kmnist_search.study_file.space import Choices, Hyperparameter, IntRange, Suggester


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


class System(Config):
    """A fixed configuration that is compared with others, and its images."""

    data: DataConfig
    train: TrainConfig
    fixed: dict[str, Any]


class StudyFile(Config):
    """A whole study file, checked.

    With `systems` nothing is searched: each trial trains one of them, as its hyperparameters say; see `system_space`.
    """

    study: StudyTable
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    fixed: dict[str, Any] = Field(default_factory=dict)
    space: dict[str, Hyperparameter] = Field(default_factory=dict)
    enqueue: tuple[dict[str, Any], ...] = ()
    systems: dict[str, System] = Field(default_factory=dict)

    @property
    def keeps_models(self) -> bool:
        """Whether what its trials have trained is kept, to be tested later."""
        return bool(self.systems)

    @property
    def datas(self) -> tuple[DataConfig, ...]:
        """The images that trials may train on."""
        return tuple(dict.fromkeys(system.data for system in self.systems.values())) or (self.data,)

    def suggest(self, trial: Suggester) -> TrialConfig:
        """Return the configuration of one trial: the searched hyperparameters from `trial`, the others as fixed."""
        return self._configured({name: spec.suggest(trial, name) for name, spec in self.space.items()})

    def middle(self) -> TrialConfig:
        """Return a configuration of middling size, to estimate costs by."""
        return self._configured({name: spec.values()[len(spec.values()) // 2] for name, spec in self.space.items()})

    def data_of(self, params: Mapping[str, Any]) -> DataConfig:
        """Return which images the trial with these hyperparameters trains on."""
        return self.systems[params["system"]].data if self.systems else self.data

    def _configured(self, params: Mapping[str, Any]) -> TrialConfig:
        if not self.systems:
            return trial_config({**self.fixed, **params}, self.train)
        system = self.systems[params["system"]]
        return trial_config(system.fixed, system.train.model_copy(update={"epochs": params["epochs"]}))


def system_space(systems: Mapping[str, System]) -> dict[str, Hyperparameter]:
    """Return what tells the trials apart that train one of several systems.

    These are the system, how often it was trained before (each trial has a seed of its own), and how long: for so many
    epochs, of which none has more than the longest system.
    """
    most = max(system.train.epochs for system in systems.values())
    return {
        "system": Choices(choices=tuple(systems)),
        "repeat": IntRange(low=0, high=999),
        "epochs": IntRange(low=1, high=most),
    }
