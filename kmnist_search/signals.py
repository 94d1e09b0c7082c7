"""Signals that ask a process to stop. Knows nothing of trials."""

import signal
from types import FrameType
from typing import Any


class StopSignals:
    """While entered, SIGINT, SIGTERM and SIGUSR1 ask for a stop; a second SIGINT ends the process at once.

    Schedulers send SIGUSR1 or SIGTERM some time before they kill, and some send them more than once.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

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
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
