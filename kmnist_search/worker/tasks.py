"""Tasks: generators that one thread advances in turn, and that wait for futures by yielding them."""

import time
from collections.abc import Generator
from concurrent.futures import Future
from enum import Enum, auto
from typing import Any, TypeAlias, TypeVar

from kmnist_search.worker.events import Event

Result = TypeVar("Result")


class Pause(Enum):
    """Why somebody at work lets the others go on: it is their TURN, or there is nothing to do, but may be SOON."""

    TURN = auto()
    SOON = auto()


#: Work that tells events, lets others go on, and waits for futures by giving them away.
Turns: TypeAlias = Generator["Event | Pause | Future[Any]", None, Result]


def waited(future: "Future[Result]") -> Turns[Result]:
    """Wait for a future and return its result."""
    if not future.done():
        yield future
    return future.result()


class Task:
    """Goes on with some work by a turn whenever it is asked to, unless the work waits for a future.

    Attributes:
        awaited: the future it waits for, if any.
        waits_since: when it began to wait for that, by `time.monotonic`.
        is_over: True when the work is done, or has broken.
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
        """Take a turn; return what came of it, which is None as long as it waits for a future.

        Args:
            error: raise it in the work, instead of going on.
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
