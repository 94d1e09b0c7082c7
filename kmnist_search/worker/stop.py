"""When a worker stops: its limits, and the request to stop."""

import time
from dataclasses import dataclass
from typing import Literal

from kmnist_search.host.signals import StopSignals

StoppedBy = Literal["budget", "queue", "signal", "timeout", "target", "patience", "max_trials", "command", "elsewhere"]
Waits = Literal["never", "for others", "forever"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a worker stops; None means no such limit.

    Attributes:
        budget: finished trials of the study; None means all in its queue.
        deadline: in seconds of `time.monotonic`, which all processes of a machine share.
        target: the metric that the best trial must reach.
        patience: finished trials of the study without a new best.
        max_trials: trials that this worker finishes.
        waits: how long to stay when nothing is left to claim: not at all, while other processes run trials, which may
            come back, or forever, because others may add trials.
    """

    budget: int | None = None
    deadline: float | None = None
    target: float | None = None
    patience: int | None = None
    max_trials: int | None = None
    waits: Waits = "never"


class Stop:
    """The request to stop, which is never withdrawn; and whether the study is paused.

    Attributes:
        is_paused: whether the trials shall be handed back, and the worker shall wait.
        why: the reason, as the attempts of handed-back trials record it; empty before the request.
        by: the limit that was reached, if any.
        urgent_at: when a signal came or time was up, by `time.monotonic`; infinity before.
    """

    def __init__(self, signals: StopSignals, *, deadline: float | None) -> None:
        self.signals, self.deadline = signals, deadline
        self.why = ""
        self.by: StoppedBy | None = None
        self.is_paused = False
        self.urgent_at = float("inf")

    @property
    def why_hand_back(self) -> str:
        """Why the running trials shall be handed back; empty if they shall go on."""
        return self.why or ("the study is paused" if self.is_paused else "")

    def check(self) -> None:
        """Request a stop if a signal has come or time is up."""
        if self.signals.received is not None:
            self.urgent_at = min(self.urgent_at, time.monotonic())
            self.request(self.signals.received.name, by="signal")
        elif self.deadline is not None and time.monotonic() > self.deadline:
            self.urgent_at = min(self.urgent_at, time.monotonic())
            self.request("time is up", by="timeout")

    def request(self, why: str, *, by: StoppedBy | None = None) -> None:
        """Request a stop, unless one was requested before."""
        if not self.why:
            self.why, self.by = why, by
