"""The events of a retraining, as values."""

from dataclasses import dataclass
from typing import Literal

from kmnist_search.engine.replica import Epoch
from kmnist_search.evaluation.metrics import Candidate, FinalModel, PairedTest, Recipe

#: A rerun of a candidate, to choose by; or a final model, on all training images.
Stage = Literal["rerun", "final"]


@dataclass(frozen=True, kw_only=True)
class TrainingStarted:
    """Training `number` (from 1) of `total` begins, or resumes after `epochs_done`; it is of trial `trial`.

    With several `seeds` it is that many trainings, computed together, of which `number` is the first.
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
    """The training at work came one epoch further; of several computed together this is the first's epoch."""

    epoch: Epoch


@dataclass(frozen=True, kw_only=True)
class TrainingEnded:
    """The training at work is over and written down; `val_accuracy` is None if nothing was held out.

    `was_done` is true if an earlier retraining had it already.
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
    """The candidates, the winner first, and whether the second is distinguishable."""

    candidates: tuple[Candidate, ...]
    paired_test: PairedTest | None


@dataclass(frozen=True, kw_only=True)
class RecipeFrozen:
    """The recipe is written down; no model of it has seen the test set."""

    recipe: Recipe


@dataclass(frozen=True, kw_only=True)
class ModelTested:
    """A final model has been tested, now or, `from_ledger`, before."""

    model: FinalModel
    from_ledger: bool


RetrainingEvent = TrainingStarted | TrainingAdvanced | TrainingEnded | WinnerChosen | RecipeFrozen | ModelTested
