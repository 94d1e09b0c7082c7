"""The settings of a study as checked, frozen values, and what a trial with given hyperparameters trains."""

import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

from pydantic import BeforeValidator, Field

from kmnist_search.config import Config, DataConfig, TrainConfig, TrialConfig, trial_config
from kmnist_search.study_file.space import Choices, Hyperparameter, IntRange, Suggester

#: The tables of a study file, in the order in which they are written.
TABLES = ("study", "data", "train", "fixed", "space", "enqueue")


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class SamplerConfig(Config):
    """What proposes configurations: "tpe" after `startup_trials` random ones, or "random" always."""

    name: Literal["tpe", "random"] = "tpe"
    startup_trials: Annotated[int, Field(ge=1)] = 10


class PrunerConfig(Config):
    """What ends hopeless trials: none before `min_epochs`; at a rung about one in `reduction_factor` continues."""

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


@dataclass(frozen=True, kw_only=True)
class TrainingSpec:
    """What a trial trains: a configuration, on which images, and whether its models are kept to be tested later."""

    config: TrialConfig
    data: DataConfig
    keeps_models: bool


class TrialQueue(Protocol):
    """What of a study is needed to fill its queue."""

    def fill(self, budget: int, first: Sequence[Mapping[str, Any]] = ()) -> int: ...
    def add(self, configurations: Sequence[Mapping[str, Any]]) -> int: ...


class StudyFile(Config, ABC):
    """The settings of a study, checked. There are two kinds: `SearchFile` and `ComparisonFile`."""

    study: StudyTable
    train: TrainConfig = TrainConfig()
    space: dict[str, Hyperparameter] = Field(default_factory=dict)
    enqueue: tuple[dict[str, Any], ...] = ()

    @abstractmethod
    def training(self, params: Mapping[str, Any]) -> TrainingSpec:
        """Return what the trial with these hyperparameters trains."""

    @abstractmethod
    def only(self, params: Mapping[str, Any]) -> "SearchFile":
        """Return a study file that trains what the trial with these hyperparameters does, and searches nothing."""

    @abstractmethod
    def fill(self, queue: TrialQueue, budget: int) -> int:
        """Put into the queue of the study what it lacks; return how many trials shall be finished in the end.

        Args:
            queue: of the study.
            budget: the trials that a search shall have.
        """

    @property
    @abstractmethod
    def shared_data(self) -> DataConfig | None:
        """The images that all trials train on; None if they differ."""

    @abstractmethod
    def next_step(self, options: str) -> str:
        """Return what to do when the trials are finished, as a sentence; its command takes `options`."""

    def datas_of(self, trials: Iterable[Mapping[str, Any]]) -> list[DataConfig]:
        """Return which images the trials with these hyperparameters train on, each once."""
        return list(dict.fromkeys(self.training(params).data for params in trials))

    def suggest(self, trial: Suggester) -> TrainingSpec:
        """Return what one trial trains: the searched hyperparameters from `trial`, the others as fixed."""
        return self.training({name: spec.suggest(trial, name) for name, spec in self.space.items()})

    def sample(self, number: int) -> list[TrialConfig]:
        """Return what `number` random trials train, each once; the same ones at every call."""
        draw = random.Random(0)
        drawn = [{name: draw.choice(spec.values()) for name, spec in self.space.items()} for _ in range(number)]
        return list(dict.fromkeys(self.training(params).config for params in drawn))

    def middle(self) -> TrialConfig:
        """Return a configuration of middling size, to estimate costs by."""
        return self.training({name: spec.values()[len(spec.values()) // 2] for name, spec in self.space.items()}).config


class SearchFile(StudyFile):
    """A study file as people write it: hyperparameters are searched, on one split of one data set."""

    data: DataConfig = DataConfig()
    fixed: dict[str, Any] = Field(default_factory=dict)

    def training(self, params: Mapping[str, Any]) -> TrainingSpec:
        config = trial_config({**self.fixed, **params}, self.train)
        return TrainingSpec(config=config, data=self.data, keeps_models=False)

    def only(self, params: Mapping[str, Any]) -> "SearchFile":
        return self.model_copy(update={"fixed": {**self.fixed, **params}, "space": {}, "enqueue": ()})

    def fill(self, queue: TrialQueue, budget: int) -> int:
        queue.fill(budget, self.enqueue)
        return budget

    @property
    def shared_data(self) -> DataConfig:
        return self.data

    def next_step(self, options: str) -> str:
        best = f"kmnist-search best {self.study.name} --retrain{options}"
        return f"To choose among the best, retrain and test it: {best}"

    def datas_of(self, trials: Iterable[Mapping[str, Any]]) -> list[DataConfig]:
        return [self.data]  # whatever the trials are, and before there is any


class System(Config):
    """A fixed configuration that is compared with others, and its images."""

    data: DataConfig
    train: TrainConfig
    fixed: dict[str, Any]


class ComparisonFile(StudyFile):
    """The study of fixed systems: each trial trains one of them on its own images, and keeps the models.

    No file holds it; it is made by a program. A trial's hyperparameters say which system it trains, see `system_space`.
    """

    systems: dict[str, System]

    def training(self, params: Mapping[str, Any]) -> TrainingSpec:
        system = self.systems[params["system"]]
        train = system.train.model_copy(update={"epochs": params["epochs"]})
        return TrainingSpec(config=trial_config(system.fixed, train), data=system.data, keeps_models=True)

    def only(self, params: Mapping[str, Any]) -> SearchFile:
        spec, system = self.training(params), self.systems[params["system"]]
        return SearchFile(study=self.study, data=spec.data, train=spec.config.train, fixed=system.fixed)

    def fill(self, queue: TrialQueue, budget: int) -> int:
        return queue.add(self.enqueue)

    @property
    def shared_data(self) -> None:
        return None

    def next_step(self, options: str) -> str:
        return "To test and compare what is trained: the kmnist-search references command that began it"


def system_space(systems: Mapping[str, System]) -> dict[str, Hyperparameter]:
    """Return the hyperparameters that tell the trials of a comparison apart.

    They are the system, how often it was trained before (each trial has a seed of its own), and for how many epochs
    it is trained, at most those of the longest system.
    """
    longest = max(system.train.epochs for system in systems.values())
    return {
        "system": Choices(choices=tuple(systems)),
        "repeat": IntRange(low=0, high=999),
        "epochs": IntRange(low=1, high=longest),
    }
