"""What happens to the trials of a run, as values. Knows nothing of who makes or shows them."""

from dataclasses import dataclass
from typing import Any, Literal

from kmnist_search.engine.training import Epoch

Outcome = Literal["complete", "pruned", "failed", "handed back"]
StoppedBy = Literal["budget", "queue", "signal", "timeout", "target"]


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
    """A trial is over, or was handed back; `value` is the metric after its last epoch."""

    number: int
    outcome: Outcome
    value: float | None
    reason: str
    epochs: int
    seconds: float


Event = TrialStarted | EpochDone | TrialEnded
