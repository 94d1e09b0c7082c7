"""The stop order of a worker: whether it must stop, and why."""

import time

from kmnist_search.host.signals import StopSignals
from kmnist_search.worker.events import StoppedBy


class Stop:
    """The order to stop; it is never withdrawn.

    Attributes:
        why: the reason, as the attempts of handed-back trials record it; empty until the order is given.
        by: the limit that was reached, if any.
        urgent_at: when a signal came or time was up, by `time.monotonic`; infinity before.
    """

    def __init__(self, signals: StopSignals, *, deadline: float | None) -> None:
        self.signals, self.deadline = signals, deadline
        self.why = ""
        self.by: StoppedBy | None = None
        self.urgent_at = float("inf")

    def look(self) -> None:
        """Give the order if a signal has come or time is up."""
        if self.signals.received is not None:
            self._order_urgently(self.signals.received.name, "signal")
        elif self.deadline is not None and time.monotonic() > self.deadline:
            self._order_urgently("time is up", "timeout")

    def order(self, why: str, *, by: StoppedBy | None = None) -> None:
        """Give the order, unless it was given before."""
        if not self.why:
            self.why, self.by = why, by

    def _order_urgently(self, why: str, by: StoppedBy) -> None:
        self.urgent_at = min(self.urgent_at, time.monotonic())
        self.order(why, by=by)
