"""Tasks: generators that one thread advances in turn, and that wait for futures by yielding them."""

import time
from collections.abc import Generator
from concurrent.futures import Future
from enum import Enum, auto
from typing import Any, TypeAlias, TypeVar

from kmnist_search.worker.events import Event

Result = TypeVar("Result")


class Pause(Enum):
    """Why a task yields: TURN, it is the others' turn; SOON, it has nothing to do at the moment."""

    TURN = auto()
    SOON = auto()


#: Work that yields events, pauses for the others, and futures to wait for.
Turns: TypeAlias = Generator["Event | Pause | Future[Any]", None, Result]


def waited(future: "Future[Result]") -> Turns[Result]:
    """Wait for a future and return its result."""
    if not future.done():
        yield future
    return future.result()


class Task:
    """Advances some work one turn at a time, unless the work waits for a future.

    Attributes:
        awaited: the future that the work waits for, if any.
        waits_since: when it began to wait, by `time.monotonic`.
        is_over: True when the work has returned or raised.
    """

    def __init__(self, turns: Turns[None]) -> None:
        self._turns = turns
        self.awaited: Future[Any] | None = None
        self.waits_since = 0.0
        self.is_over = False

    @property
    def is_waiting(self) -> bool:
        return self.awaited is not None and not self.awaited.done()

    def go_on(self, error: Exception | None = None) -> Event | Pause | None:
        """Take a turn; return what the work yielded, or None while it waits for a future.

        Args:
            error: raised in the work instead of resuming it.
        """
        if error is None and self.is_waiting:
            return None
        self.awaited = None
        try:
            turn = next(self._turns) if error is None else self._turns.throw(error)
        except StopIteration:
            self.is_over = True
            return Pause.TURN
        except BaseException:
            self.is_over = True
            raise
        if isinstance(turn, Future):
            self.awaited, self.waits_since = turn, time.monotonic()
            return None
        return turn
