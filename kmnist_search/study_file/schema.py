"""The settings of a study as checked, frozen values, and what its trials train."""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Protocol

from pydantic import BeforeValidator, Field

from kmnist_search.config import (
    Config,
    DataConfig,
    TrainConfig,
    TrialConfig,
    cost,
    field_of,
    hyperparameters_of,
    trial_config,
)
from kmnist_search.errors import ConfigError
from kmnist_search.study_file.constraints import ConstraintsTable
from kmnist_search.study_file.space import Hyperparameter, Suggester, block_by_block, of_block

#: The tables of a study file, in the order in which they are written.
TABLES = ("study", "data", "train", "retrain", "constraints", "fixed", "space", "enqueue")


#: Ends the name of a study that holds the trainings of a retraining.
RETRAINING_SUFFIX = "-retraining"


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class SamplerConfig(Config):
    """What proposes configurations: "gp" or "tpe" after `startup_trials` random ones, or "random" always."""

    name: Literal["gp", "tpe", "random"] = "gp"
    startup_trials: Annotated[int, Field(ge=1)] = 10


class PrunerConfig(Config):
    """What ends or pauses trials: none before `min_epochs`; at a rung about one in `reduction_factor` continues.

    `min_epochs` None is a third of a trial's epochs. With "asha" a trial pauses at each rung and continues once it is
    among the best; the others end trials for good.
    """

    name: Literal["asha", "hyperband", "successive_halving", "median", "none"] = "asha"
    min_epochs: Annotated[int, Field(ge=1)] | None = None
    reduction_factor: Annotated[int, Field(ge=2)] = 3

    def first_rung(self, epochs: int) -> int:
        """Return after how many epochs of `epochs` a trial may end or pause."""
        return max(epochs // 3, 1) if self.min_epochs is None else min(self.min_epochs, epochs)


class StudyTable(Config):
    """The table [study].

    With `second_objective` the search seeks the best net of each size, not the best net alone.

    A trial whose worker is gone for `lease_seconds` goes back to the queue, at most `max_retries` times.
    """

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^\w[\w.-]*$")]
    metric: Literal["val_accuracy", "val_loss"] = "val_accuracy"
    second_objective: Literal["parameters"] | None = None
    sampler: Annotated[SamplerConfig, BeforeValidator(_named)] = SamplerConfig()
    pruner: Annotated[PrunerConfig, BeforeValidator(_named)] = PrunerConfig()
    seed: Annotated[int, Field(ge=0)] = 0
    trials: Annotated[int, Field(ge=1)] = 100
    max_retries: Annotated[int, Field(ge=0)] = 3
    lease_seconds: Annotated[float, Field(ge=1)] = 120.0
    meant_for: Literal["any", "gpu"] = "any"

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        return "minimize" if self.metric == "val_loss" else "maximize"


class PlanTable(StudyTable):
    """The table [study] of a `PlanFile`: nothing is proposed, and nothing pruned.

    `accuracy` is that of the validation images, or that of the training images where nothing is held out.

    Attributes:
        plan: the command that plans the trainings.
        retrains: name of the study whose winner is retrained; empty if there is none.
    """

    plan: Literal["best", "references"]
    retrains: str = ""
    metric: Literal["accuracy"] = "accuracy"  # type: ignore[assignment]
    sampler: SamplerConfig = SamplerConfig(name="random")
    pruner: PrunerConfig = PrunerConfig(name="none")


class RetrainTable(Config):
    """The table [retrain]: how the winner is chosen and retrained.

    The `top_k` best distinct configurations are trained again with `reruns` fresh seeds and splits each. The winner is
    trained with `models` seeds on all training images. `rerun_epochs` and `epochs` are those of a rerun and of a final
    model; without them, those of the study. Nets of more than `max_parameters` are no candidates.
    """

    top_k: Annotated[int, Field(ge=1)] = 5
    reruns: Annotated[int, Field(ge=1)] = 3
    rerun_epochs: Annotated[int, Field(ge=1)] | None = None
    models: Annotated[int, Field(ge=1)] = 5
    epochs: Annotated[int, Field(ge=1)] | None = None
    max_parameters: Annotated[int, Field(ge=1)] | None = None


#: Which models of a training are kept: that of its last epoch, that of its best epoch on the validation images.
Which = Literal["last", "best"]


class TrainingSpec(Config):
    """What a trial trains: a configuration, on which images, with which seed, and which of its models are kept.

    A seed of None is derived from the number of the trial.
    """

    config: TrialConfig
    data: DataConfig
    seed: int | None = None
    keeps: Annotated[tuple[Which, ...], BeforeValidator(tuple)] = ()


class PlannedTraining(Config):
    """A training that somebody asks for, and the values that it is listed with."""

    params: dict[str, Any]
    spec: TrainingSpec

    @property
    def flops(self) -> float:
        """The floating-point operations of the training for each image."""
        return 3.0 * self.spec.config.train.epochs * cost.flops_per_image(self.spec.config.model)


class TrialQueue(Protocol):
    """What of a study is needed to fill its queue."""

    def fill(self, budget: int, first: Sequence[Mapping[str, Any]] = ()) -> int: ...
    def add(self, trainings: Sequence[PlannedTraining]) -> int: ...


class StudyFile(Config, ABC):
    """The settings of a study, checked. There are two kinds: `SearchFile` and `PlanFile`."""

    study: StudyTable
    train: TrainConfig = TrainConfig()
    space: dict[str, Hyperparameter] = Field(default_factory=dict)

    @property
    def searched(self) -> dict[str, Hyperparameter]:
        """The hyperparameters as trials have them."""
        return self.space

    @abstractmethod
    def suggest(self, trial: Suggester, given: Mapping[str, Any] | None = None) -> TrainingSpec:
        """Return what one trial trains, with its hyperparameters from `trial`.

        Args:
            trial: suggests hyperparameters.
            given: the training that the trial was added to the queue with, if it was.
        """

    @abstractmethod
    def fill(self, queue: TrialQueue, budget: int) -> int | None:
        """Put into the queue what it lacks; return how many trials shall be finished, None for all in the queue.

        Args:
            queue: of the study.
            budget: the trials that a search shall have.
        """

    @abstractmethod
    def datas(self) -> Sequence[DataConfig]:
        """Return which images its trials train on, each once."""

    @property
    @abstractmethod
    def shared_data(self) -> DataConfig | None:
        """The images that all trials train on; None if they differ."""

    @abstractmethod
    def sample(self, number: int) -> list[TrialConfig]:
        """Return what `number` of its trials may train, each once; the same ones at every call."""

    @abstractmethod
    def middle(self) -> TrialConfig:
        """Return a configuration of middling size, to estimate costs by."""

    @property
    def is_constrained(self) -> bool:
        """Whether some proposals are not allowed."""
        return False

    def allows(self, params: Mapping[str, Any]) -> bool:
        """Return whether the constraints allow a trial with these hyperparameters."""
        return True

    @property
    def keeps(self) -> bool:
        """Whether models of its trainings are kept: then all workers must see one artifact store."""
        return False

    @abstractmethod
    def next_step(self, options: str) -> str:
        """Return what to do when the trials are finished, as a sentence; its command takes `options`."""

    def with_trainings(self, left: Callable[[], Sequence[PlannedTraining]]) -> "StudyFile":
        """Return the study file with the trainings that are `left` in its queue, if it consists of such."""
        return self


class SearchFile(StudyFile):
    """A study file as people write it: hyperparameters are searched, on one split of one data set."""

    data: DataConfig = DataConfig()
    retrain: RetrainTable = RetrainTable()
    constraints: ConstraintsTable = ConstraintsTable()
    fixed: dict[str, Any] = Field(default_factory=dict)
    enqueue: tuple[dict[str, Any], ...] = ()

    @classmethod
    def repeating(cls, spec: TrainingSpec, study: StudyTable) -> "SearchFile":
        """Return the study file that trains what `spec` says, and searches nothing."""
        return cls(study=study, data=spec.data, train=spec.config.train, fixed=hyperparameters_of(spec.config))

    @property
    def searched(self) -> dict[str, Hyperparameter]:
        return block_by_block(self.space, self.num_blocks)

    @property
    def num_blocks(self) -> Sequence[int]:
        """How many blocks the nets may have."""
        if "num_blocks" in self.space:
            return self.space["num_blocks"].values()
        return [self.fixed.get("num_blocks", field_of("num_blocks").default)]

    def config(self, params: Mapping[str, Any]) -> TrialConfig:
        """Return the configuration of a trial with these hyperparameters; the others are as fixed.

        Of those with a value for each block, a block without one has the largest.
        """
        given = {**self.fixed, **params}
        num_blocks = given.get("num_blocks", self.num_blocks[-1])
        for name, spec in self.space.items():
            if spec.each_block and name not in given:
                of_blocks = [of_block(name, block) for block in range(1, max(self.num_blocks) + 1)]
                values = [given.pop(each, max(spec.values())) for each in of_blocks]
                given[name] = tuple(values[:num_blocks])
        return trial_config(given, self.train)

    @property
    def is_constrained(self) -> bool:
        return self.constraints != ConstraintsTable()

    def num_parameters(self, params: Mapping[str, Any]) -> int:
        """Return the number of trained parameters of the net of a trial with these hyperparameters."""
        return cost.num_parameters(self.config(params).model)

    def allows(self, params: Mapping[str, Any]) -> bool:
        return not self.constraints.excess(self.config(params))

    def suggest(self, trial: Suggester, given: Mapping[str, Any] | None = None) -> TrainingSpec:
        params: dict[str, Any] = {}
        for name, spec in sorted(self.searched.items(), key=lambda item: bool(item[1].when)):
            if spec.applies(params):
                params[name] = spec.suggest(trial, name)
        return TrainingSpec(config=self.config(params), data=self.data)

    def fill(self, queue: TrialQueue, budget: int) -> int:
        queue.fill(budget, [self.block_by_block(entry) for entry in self.enqueue])
        return budget

    def block_by_block(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Return an entry of the queue with the names that trials have."""
        found: dict[str, Any] = {}
        for name, value in entry.items():
            if name in self.space and self.space[name].each_block:
                values = value if isinstance(value, list | tuple) else [value] * max(self.num_blocks)
                found |= {of_block(name, block): each for block, each in enumerate(values, start=1)}
            else:
                found[name] = value
        return found

    def datas(self) -> Sequence[DataConfig]:
        return [self.data]

    @property
    def shared_data(self) -> DataConfig:
        return self.data

    def sample(self, number: int) -> list[TrialConfig]:
        draw = random.Random(0)
        drawn = [{name: draw.choice(spec.values()) for name, spec in self.space.items()} for _ in range(number)]
        return list(dict.fromkeys(self.config(params) for params in drawn if self.allows(params)))

    def middle(self) -> TrialConfig:
        return self.config({name: spec.values()[len(spec.values()) // 2] for name, spec in self.space.items()})

    def next_step(self, options: str) -> str:
        best = f"kmnist-search best {self.study.name}"
        front = f"To see the best of each size: {best} --front{options}\n" if self.study.second_objective else ""
        return f"{front}To choose among the best, retrain and test it: {best} --retrain{options}"


class PlanFile(StudyFile):
    """The study of planned trainings: each entry of its queue says what it trains.

    No file holds it; it is made by a program. What the trainings are listed with is its `space`.

    Attributes:
        trainings: those that this process knows of, not a setting: the queue in the database holds them all.
    """

    study: PlanTable
    trainings: tuple[PlannedTraining, ...] = Field(default=(), exclude=True)

    def suggest(self, trial: Suggester, given: Mapping[str, Any] | None = None) -> TrainingSpec:
        for name, spec in self.space.items():
            spec.suggest(trial, name)
        if given is None:
            raise ConfigError(
                f"another program added this trial to study {self.study.name!r} without what to train. "
                "Its trainings are planned by the command that made it."
            )
        return TrainingSpec.model_validate(given)

    def fill(self, queue: TrialQueue, budget: int) -> None:
        queue.add(self.trainings)

    def datas(self) -> Sequence[DataConfig]:
        return list(dict.fromkeys(each.spec.data for each in self.trainings))

    @property
    def shared_data(self) -> None:
        return None

    def sample(self, number: int) -> list[TrialConfig]:
        return list(dict.fromkeys(each.spec.config for each in self.trainings))

    def middle(self) -> TrialConfig:
        by_cost = sorted(self.trainings, key=lambda each: each.flops)
        return by_cost[len(by_cost) // 2].spec.config if by_cost else TrialConfig(train=self.train)

    def next_step(self, options: str) -> str:
        return (
            f"If the command that planned these trainings was stopped, repeat it as it was: {self.planned_by}{options}"
        )

    @property
    def planned_by(self) -> str:
        """The command that planned the trainings, and tests the models when all are trained."""
        return (
            f"kmnist-search best {self.study.retrains} --retrain" if self.study.retrains else "kmnist-search references"
        )

    @property
    def keeps(self) -> bool:
        return True

    def with_trainings(self, left: Callable[[], Sequence[PlannedTraining]]) -> "PlanFile":
        return self.model_copy(update={"trainings": tuple(left())})
