"""The order to stop: whether a worker must stop, and why."""

import time

from kmnist_search.host.signals import StopSignals
from kmnist_search.worker.events import StoppedBy


class Stop:
    """The order to stop, which once given is not taken back.

    Attributes:
        why: in words, as it stands in the attempts at the trials that are handed back; empty while all may go on.
        by: which limit it was, if it was one.
        urgent_at: when a signal had come or time was up, by `time.monotonic`; infinity before.
    """

    def __init__(self, signals: StopSignals, *, deadline: float | None) -> None:
        self.signals, self.deadline = signals, deadline
        self.why = ""
        self.by: StoppedBy | None = None
        self.urgent_at = float("inf")

    def look(self) -> None:
        """See whether a signal has come or time is up."""
        if self.signals.received is not None:
            self._order_urgently(self.signals.received.name, "signal")
        elif self.deadline is not None and time.monotonic() > self.deadline:
            self._order_urgently("time is up", "timeout")

    def order(self, why: str, *, by: StoppedBy | None = None) -> None:
        """Stop, unless that was ordered before."""
        if not self.why:
            self.why, self.by = why, by

    def _order_urgently(self, why: str, by: StoppedBy) -> None:
        self.urgent_at = min(self.urgent_at, time.monotonic())
        self.order(why, by=by)
