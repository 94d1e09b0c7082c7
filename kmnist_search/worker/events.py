"""The events of a run, as values."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kmnist_search.engine.replica import Epoch
from kmnist_search.study_file.schema import TrainingSpec

Outcome = Literal["complete", "paused", "pruned", "failed", "handed back", "lost"]


@dataclass(frozen=True, kw_only=True)
class TrialStarted:
    """A trial was claimed; `epochs_done` is above 0 if it resumes from a checkpoint."""

    number: int
    params: dict[str, Any]
    epochs_done: int


@dataclass(frozen=True, kw_only=True)
class EpochDone:
    """A trial has finished an epoch."""

    number: int
    epoch: Epoch


@dataclass(frozen=True, kw_only=True)
class WithinEpoch:
    """A trial is within an epoch that takes long; `share` of it is trained, from 0 to 1."""

    number: int
    share: float


@dataclass(frozen=True, kw_only=True)
class TrialEnded:
    """A trial has ended, was handed back or was lost; `value` is the metric after its last epoch."""

    number: int
    params: dict[str, Any]
    outcome: Outcome
    value: float | None
    reason: str
    epochs: int
    seconds: float


@dataclass(frozen=True, eq=False, kw_only=True)
class TrialValidated:
    """A trial is complete: its predictions for the validation images.

    Only the publisher in the same process receives this event.

    Attributes:
        spec: what it trained.
        history: all epochs.
        val_probabilities: (V, 10) for V images, or None if unknown.
    """

    trial_id: int
    number: int
    spec: TrainingSpec
    history: Sequence[Epoch]
    val_probabilities: NDArray[np.float32] | None


@dataclass(frozen=True, kw_only=True)
class RunWarning:
    """Something that the user should still know after the run; the work continues."""

    text: str


@dataclass(frozen=True, kw_only=True)
class DatabaseAway:
    """The database cannot be used at the moment; the worker keeps trying."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class DatabaseBack:
    """The database can be used again, after `seconds`."""

    seconds: float


@dataclass(frozen=True, kw_only=True)
class Stopping:
    """The run is stopping, and waits at most `seconds` for the database."""

    seconds: float


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Nothing is left to claim, or the study is paused; the worker looks again from time to time."""

    is_paused: bool


Event = (
    TrialStarted
    | EpochDone
    | WithinEpoch
    | TrialValidated
    | TrialEnded
    | RunWarning
    | DatabaseAway
    | DatabaseBack
    | Stopping
    | Waiting
)
