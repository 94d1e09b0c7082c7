"""Signals that ask the process to stop."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType
from typing import Any


class StopSignals:
    """While entered, SIGINT, SIGTERM and SIGUSR1 ask for a stop; a second SIGINT ends the process at once.

    Schedulers send SIGUSR1 or SIGTERM some time before they kill, and some send them more than once. The terminal sends
    a Ctrl-C to all processes, and a parent may pass it on to this one again: a repetition at once is not a second one.
    Only the main thread gets signals; in another one nothing asks for a stop.

    Attributes:
        received: the last signal, None before the first.
    """

    #: Seconds after a SIGINT in which another one is a repetition: nobody presses Ctrl-C twice so fast.
    ECHO_SECONDS = 0.3

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._interrupted_at = float("inf")
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            now = time.monotonic()
            if now - self._interrupted_at > self.ECHO_SECONDS:
                signal.default_int_handler(number, _frame)
            self._interrupted_at = min(self._interrupted_at, now)
        self.received = signal.Signals(number)


@contextmanager
def blocked(*signals: signal.Signals) -> Iterator[None]:
    """Start processes with blocked signals: they never get them, or get them when they unblock them."""
    resource_tracker.ensure_running()  # starting it unblocks them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
