"""Tasks: generators that one thread advances in turn, and that wait for futures by yielding them."""

import time
from collections.abc import Generator
from concurrent.futures import Future
from enum import Enum, auto
from typing import Any, TypeAlias, TypeVar

from kmnist_search.worker.events import Event

Result = TypeVar("Result")


class State(Enum):
    """Whether a task can take its next step: READY, at once; IDLE, in a moment; WAITING, when its future is done."""

    READY = auto()
    IDLE = auto()
    WAITING = auto()


#: Work that yields events, its state between two steps, and futures to wait for.
Steps: TypeAlias = Generator["Event | State | Future[Any]", None, Result]


def wait_for(future: "Future[Result]") -> Steps[Result]:
    """Wait for a future and return its result."""
    if not future.done():
        yield future
    return future.result()


class Task:
    """Advances some work one step at a time, unless the work waits for a future.

    Attributes:
        awaited: the future that the work waits for, if any.
        waits_since: when it began to wait, by `time.monotonic`.
        is_over: True when the work has returned or raised.
    """

    def __init__(self, steps: Steps[None]) -> None:
        self._steps = steps
        self.awaited: Future[Any] | None = None
        self.waits_since = 0.0
        self.is_over = False

    @property
    def is_waiting(self) -> bool:
        return self.awaited is not None and not self.awaited.done()

    def step(self, error: Exception | None = None) -> Event | State:
        """Take a step, unless the work waits; return the event or the state that it yielded.

        Args:
            error: raised in the work instead of resuming it.
        """
        if error is None and self.is_waiting:
            return State.WAITING
        self.awaited = None
        try:
            step = next(self._steps) if error is None else self._steps.throw(error)
        except StopIteration:
            self.is_over = True
            return State.READY
        except BaseException:
            self.is_over = True
            raise
        if isinstance(step, Future):
            self.awaited, self.waits_since = step, time.monotonic()
            return State.WAITING
        return step
