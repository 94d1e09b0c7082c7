"""The limits of a worker: when it stops."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a worker stops; None means no such limit.

    Attributes:
        budget: finished trials of the study; None means all in its queue.
        deadline: in seconds of `time.monotonic`, which all processes of a machine share.
        target: the metric that the best trial must reach.
        max_trials: trials that this worker finishes.
        waits: wait when nothing is left to claim, because others may add or lose trials.
    """

    budget: int | None = None
    deadline: float | None = None
    target: float | None = None
    max_trials: int | None = None
    waits: bool = False
