"""The events of a retraining: these, each epoch of the current training, and the recipe when it is frozen."""

from dataclasses import dataclass
from typing import Literal

from kmnist_search.engine.replica import Epoch
from kmnist_search.evaluation.metrics import Candidate, FinalModel, FinalTraining, PairedTest, Recipe, Rerun

#: A rerun of a candidate for the choice, or a final model on all training images.
Stage = Literal["rerun", "final"]


@dataclass(frozen=True, kw_only=True)
class TrainingStarted:
    """Training `number` (from 1) of `total` begins, or resumes after `epochs_done`; it belongs to trial `trial`.

    With several `seeds`, that many trainings run together, of which `number` is the first; the epochs that follow are
    those of the first.
    """

    stage: Stage
    number: int
    total: int
    trial: int
    seeds: tuple[int, ...]
    epochs_done: int
    epochs: int


@dataclass(frozen=True, kw_only=True)
class TrainingEnded:
    """A training has ended and is recorded. `was_done` is true if an earlier retraining did it."""

    number: int
    total: int
    trial: int
    training: Rerun | FinalTraining
    was_done: bool

    @property
    def stage(self) -> Stage:
        return "rerun" if isinstance(self.training, Rerun) else "final"


@dataclass(frozen=True, kw_only=True)
class WinnerChosen:
    """The candidates, winner first, and whether the second is distinguishable."""

    candidates: tuple[Candidate, ...]
    paired_test: PairedTest | None


@dataclass(frozen=True, kw_only=True)
class ModelTested:
    """A final model was tested now, or earlier if `from_ledger`."""

    model: FinalModel
    from_ledger: bool


RetrainingEvent = TrainingStarted | Epoch | TrainingEnded | WinnerChosen | Recipe | ModelTested
