"""The events of a run, as values."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kmnist_search.engine.replica import Epoch

Outcome = Literal["complete", "pruned", "failed", "handed back", "lost"]
StoppedBy = Literal["budget", "queue", "signal", "timeout", "target", "max_trials"]


@dataclass(frozen=True, kw_only=True)
class TrialStarted:
    """A trial was claimed; `epochs_done` is above 0 when it goes on from a checkpoint."""

    number: int
    params: dict[str, Any]
    num_parameters: int
    epochs_done: int


@dataclass(frozen=True, kw_only=True)
class EpochDone:
    """A trial came one epoch further."""

    number: int
    epoch: Epoch


@dataclass(frozen=True, kw_only=True)
class TrialEnded:
    """A trial is over, or was handed back or lost to another worker; `value` is the metric after its last epoch."""

    number: int
    params: dict[str, Any]
    outcome: Outcome
    value: float | None
    reason: str
    epochs: int
    seconds: float


@dataclass(frozen=True, eq=False, kw_only=True)
class TrialValidated:
    """A trial is complete, and this is what its model made of the validation images.

    It is for who draws that, in the same process, and told to nobody else.

    Attributes:
        history: all epochs.
        val_probabilities: (V, 10), or None if that is not known.
    """

    trial_id: int
    number: int
    params: dict[str, Any]
    history: Sequence[Epoch]
    val_probabilities: NDArray[np.float32] | None


@dataclass(frozen=True, kw_only=True)
class NotShown:
    """Something of what the dashboard shows could not be written, for this reason; the search goes on without."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class KernelsMissing:
    """The fused kernels cannot run on this GPU, for this reason; trials train in plain torch, several times slower."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class DatabaseAway:
    """The database cannot be used at the moment, for this reason; it is asked again and again."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class DatabaseBack:
    """The database can be used again, after so many seconds."""

    seconds: float


@dataclass(frozen=True, kw_only=True)
class Stopping:
    """The run is to stop, and waits at most so many seconds for the database."""

    seconds: float


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Nothing is left to claim; the worker looks again and again for what others may add to the queue, or lose."""


@dataclass(frozen=True, kw_only=True)
class WorkerDied:
    """One of several worker processes, counted from 1, died; `how` says of what. Another takes its place."""

    worker: int
    device: str
    how: str


Event = (
    KernelsMissing
    | TrialStarted
    | EpochDone
    | TrialValidated
    | TrialEnded
    | NotShown
    | DatabaseAway
    | DatabaseBack
    | Stopping
    | Waiting
    | WorkerDied
)
