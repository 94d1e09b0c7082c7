"""The events of a retraining."""

from dataclasses import dataclass
from typing import Literal

from kmnist_search.engine.replica import Epoch
from kmnist_search.evaluation.metrics import Candidate, FinalModel, PairedTest, Recipe

#: A rerun of a candidate for the choice, or a final model on all training images.
Stage = Literal["rerun", "final"]


@dataclass(frozen=True, kw_only=True)
class TrainingStarted:
    """Training `number` (from 1) of `total` begins, or resumes after `epochs_done`; it belongs to trial `trial`.

    With several `seeds`, that many trainings run together, of which `number` is the first.
    """

    stage: Stage
    number: int
    total: int
    trial: int
    seeds: tuple[int, ...]
    epochs_done: int
    epochs: int


@dataclass(frozen=True, kw_only=True)
class TrainingAdvanced:
    """The current training finished an epoch; if several run together, it is the first's epoch."""

    epoch: Epoch


@dataclass(frozen=True, kw_only=True)
class TrainingEnded:
    """The current training has ended and is recorded; `val_accuracy` is None if nothing was held out.

    `was_done` is true if an earlier retraining did it.
    """

    stage: Stage
    number: int
    total: int
    trial: int
    seed: int
    val_accuracy: float | None
    seconds: float
    was_done: bool


@dataclass(frozen=True, kw_only=True)
class WinnerChosen:
    """The candidates, winner first, and whether the second is distinguishable."""

    candidates: tuple[Candidate, ...]
    paired_test: PairedTest | None


@dataclass(frozen=True, kw_only=True)
class RecipeFrozen:
    """The recipe is recorded; no model of it has seen the test set."""

    recipe: Recipe


@dataclass(frozen=True, kw_only=True)
class ModelTested:
    """A final model was tested now, or earlier if `from_ledger`."""

    model: FinalModel
    from_ledger: bool


RetrainingEvent = TrainingStarted | TrainingAdvanced | TrainingEnded | WinnerChosen | RecipeFrozen | ModelTested
