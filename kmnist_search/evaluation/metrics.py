"""The figures of a retrained winner, as frozen values: what `metrics.json` holds.

Accuracies are shares of 1, losses mean cross entropies, times seconds of training unless a name says otherwise.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from kmnist_search.config import TrialConfig
from kmnist_search.host import environment

UnitShare = Annotated[float, Field(ge=0, le=1)]
Interval = Annotated[tuple[float, float], Field(description="lower and upper bound")]


class Figures(BaseModel):
    """A group of figures; refuses names it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def read(cls, file: Path) -> Self | None:
        """Return the figures in a JSON file; None if it cannot be read or holds something else."""
        try:
            return cls.model_validate_json(file.read_bytes())
        except (OSError, ValidationError):
            return None

    def write(self, file: Path) -> None:
        """Write the figures to a JSON file."""
        file.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


class StudyFigures(Figures):
    """The search that the candidates come from, at the time of the retraining."""

    name: str
    metric: Literal["val_accuracy", "val_loss"]
    epochs: int | None = Field(default=None, description="of a trial; null in results of an earlier version")
    complete: int
    pruned: int
    failed: int
    unfinished: int = Field(description="trials that were waiting or running")
    best_trial: int
    best_value: float = Field(description="the metric of the best trial; as the best of many, it is too optimistic")
    seconds: float = Field(description="training time of all trials together")


class DataFigures(Figures):
    """The images."""

    dataset: str
    train_images: int = Field(description="the whole training set")
    test_images: int
    train_digest: str = Field(description="first 12 hexadecimal digits of the SHA-256 of images and labels")
    test_digest: str
    mean: float = Field(description="of the training pixels, as a share of 255; inputs are normalised by it")
    std: float


class EpochFigures(Figures):
    """One epoch of a training; without a validation part the last two are null."""

    number: int
    train_loss: float = Field(description="of the augmented training batches")
    train_accuracy: UnitShare
    val_loss: float | None = None
    val_accuracy: UnitShare | None = None


class Rerun(Figures):
    """A candidate trained again with a fresh seed on a fresh split of the training set."""

    seed: int
    split_seed: int
    val_accuracy: UnitShare = Field(description="after the last epoch; 0 if it diverged")
    val_loss: float | None = Field(description="null if it diverged")
    seconds: float
    epochs: tuple[EpochFigures, ...]


class Candidate(Figures):
    """One of the best distinct configurations of the study."""

    trial: int
    config_digest: str
    params: Mapping[str, Any] = Field(description="the hyperparameters that were searched")
    num_parameters: int
    study_val_accuracy: UnitShare = Field(description="in the study")
    reruns: tuple[Rerun, ...] = Field(description="empty if there was one candidate")
    mean_val_accuracy: UnitShare | None = Field(description="of the reruns")
    sd_val_accuracy: float | None = Field(description="standard deviation of the reruns; null for fewer than two")
    luck: float | None = Field(description="study_val_accuracy minus mean_val_accuracy")


class PairedTest(Figures):
    """Whether winner and runner-up differ, by the reruns that share seed and split."""

    winner: int = Field(description="number of its trial")
    runner_up: int
    mean_difference: float = Field(description="of validation accuracy, winner minus runner-up")
    p_value: UnitShare | None = Field(description="two-sided; null for fewer than two reruns each")
    distinguishable: bool = Field(description="true if p_value is below 0.05")
    method: str


class Recipe(Figures):
    """What was decided before the test set was opened: all that a final model depends on, except its seed."""

    digest: str = Field(description="first 12 hexadecimal digits of the SHA-256 of configuration and training data")
    trial: int
    config: Mapping[str, Any] = Field(description="a whole trial configuration, as `kmnist_search.config` defines it")
    config_digest: str
    epochs: int
    seeds: tuple[int, ...] = Field(description="of the final models; the model of the first one is kept")
    frozen_at: AwareDatetime

    @classmethod
    def frozen_now(cls, config: TrialConfig, *, digest: str, trial: int, seeds: Sequence[int]) -> Self:
        """Return the recipe of a trial's configuration; see `recipe_digest`."""
        return cls(
            digest=digest,
            trial=trial,
            config=config.model_dump(mode="json"),
            config_digest=config.digest,
            epochs=config.train.epochs,
            seeds=tuple(seeds),
            frozen_at=datetime.now(UTC),
        )


class FinalModel(Figures):
    """A model trained by the recipe on the whole training set, and its one look at the test set."""

    seed: int
    weights_sha256: str
    seconds: float
    epochs: tuple[EpochFigures, ...]
    opened_at: AwareDatetime
    test_correct: int
    test_accuracy: UnitShare
    test_loss: float


class ClassFigures(Figures):
    """The results of the kept model on one class of the test set."""

    label: int
    name: str
    precision: UnitShare | None = Field(description="null if the class was never predicted")
    recall: UnitShare = Field(description="0 if there is no image of the class")
    f1: UnitShare
    images: int


class CalibrationBin(Figures):
    """Test images whose highest probability lies in (low, high]."""

    low: UnitShare
    high: UnitShare
    images: int
    confidence: UnitShare | None = Field(description="mean highest probability; null if there is no image")
    accuracy: UnitShare | None


class KeptModel(Figures):
    """The kept model: the one of the recipe's first seed, which was decided before any look at the test set."""

    seed: int
    test_accuracy: UnitShare
    confusion: tuple[tuple[int, ...], ...] = Field(description="test images by true (row) and predicted class (column)")
    classes: tuple[ClassFigures, ...]
    calibration: tuple[CalibrationBin, ...]
    calibration_error: float = Field(description="expected calibration error over the bins")


class FinalFigures(Figures):
    """The results of the final models on the test set."""

    mean_accuracy: UnitShare
    seeds_interval: Interval | None = Field(
        description="95 % interval of the mean over seeds, by Student's t; null for one seed"
    )
    sampling_interval: Interval = Field(
        description="95 % Wilson interval of mean_accuracy for this number of test images"
    )
    val_accuracy: UnitShare = Field(description="mean of the winner's reruns; its score in the study if there are none")
    gap: float = Field(description="val_accuracy minus mean_accuracy")
    models: tuple[FinalModel, ...]
    kept: KeptModel


class Opening(Figures):
    """One model's look at the test set, an entry of the study's ledger."""

    opened_at: AwareDatetime
    recipe_digest: str
    seed: int
    weights_sha256: str
    correct: int | None = Field(description="null, like the next two, if the look was interrupted")
    accuracy: UnitShare | None
    loss: float | None


class Reproduced(Figures):
    """The results of a published system that was trained here: means over seeds."""

    seeds: int
    epochs: int = Field(description="of each training; may be fewer than published")
    num_parameters: int
    seconds: float = Field(description="of one training")
    train_loss: float = Field(description="of the last epoch, like the next two")
    train_accuracy: UnitShare
    val_accuracy: UnitShare
    best_val_accuracy: UnitShare = Field(description="of each training's best epoch on the validation images")
    test_accuracy: UnitShare = Field(description="after the last epoch")
    test_accuracy_sd: float | None = Field(description="standard deviation over the seeds; null for one")
    best_test_accuracy: UnitShare = Field(description="after the best epoch on the validation images")


class Reference(Figures):
    """A published result to compare with."""

    name: str
    system: str
    dataset: str
    study: str = Field(description="the built-in study that trains it")
    accuracy: UnitShare
    measured_on: Literal["test", "augmented validation"] = Field(description="the images of the accuracy")
    chosen_on: str = Field(description="the images that its settings were chosen on")
    epochs: int
    train_loss: float | None = None
    train_accuracy: UnitShare | None = None
    remark: str = Field(default="", description="what to know when comparing")
    reproduced: Reproduced | None = Field(default=None, description="null if it was not trained here")

    @property
    def difference(self) -> float | None:
        """Our accuracy minus the published one, on the test set after as many epochs; None if not known."""
        ours = self.reproduced
        if ours is None or ours.epochs != self.epochs or self.measured_on != "test":
            return None
        return ours.test_accuracy - self.accuracy


class Reproduction(Figures):
    """What is needed to reproduce the result."""

    command: str = Field(description="shell commands, one line each for search and retraining")
    versions: Mapping[str, str]
    machine: str
    device: str
    git_commit: str | None = Field(description="of the program, if it runs from a clone of its repository")

    @classmethod
    def here(cls, command: str, *, device: str) -> Self:
        """Return what this process runs with, on a device."""
        return cls(
            command=command,
            versions=environment.versions(),
            machine=environment.machine(),
            device=device,
            git_commit=environment.git_commit(),
        )


class Metrics(Figures):
    """All of `metrics.json`."""

    schema_version: Literal[1] = 1
    made_at: AwareDatetime
    study: StudyFigures
    data: DataFigures
    candidates: tuple[Candidate, ...] = Field(description="the winner first, the others by mean validation accuracy")
    paired_test: PairedTest | None = Field(description="null if there was one candidate")
    recipe: Recipe
    test: FinalFigures
    ledger: tuple[Opening, ...] = Field(description="every look at the test set for this study, earliest first")
    references: tuple[Reference, ...]
    reproduction: Reproduction

    @property
    def recipes_tested(self) -> int:
        """The number of recipes that were tested; if above 1, the accuracies may be too optimistic."""
        return len({opening.recipe_digest for opening in self.ledger})
