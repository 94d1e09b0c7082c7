"""When a worker stops."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a worker stops; None is no such limit.

    Attributes:
        budget: finished trials of the study; None is all that its queue holds.
        deadline: by `time.monotonic`, which all processes of a machine share.
        target: a metric that the best trial reaches.
        max_trials: trials that this worker itself finishes.
        waits: stay when nothing is left to claim, because others may add trials or lose theirs.
    """

    budget: int | None = None
    deadline: float | None = None
    target: float | None = None
    max_trials: int | None = None
    waits: bool = False
