"""Signals that ask a process to stop. Knows nothing of trials."""

import signal
from types import FrameType
from typing import Any


class StopSignals:
    """While entered, the first SIGINT or SIGTERM asks for a stop and the second ends the process at once."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        self._before = {number: signal.signal(number, self._receive) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        for each in self.SIGNALS:
            signal.signal(each, signal.default_int_handler)
