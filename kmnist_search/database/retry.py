"""Retries while the database is away, up to a time limit."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from threading import Event
from typing import Any, TypeVar

from sqlalchemy.engine import Connection
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from kmnist_search.database.connections import LOCK_TIMEOUT_SECONDS
from kmnist_search.database.errors import is_passing, reason_of
from kmnist_search.database.storage import Storage
from kmnist_search.errors import DatabaseAwayError

MAX_PAUSE_SECONDS = 5.0
#: A server that has not ended a transaction after this time counts as away; waiting for a lock takes less.
SILENCE_SECONDS = 2.0 * LOCK_TIMEOUT_SECONDS
#: How long the database may still be away after the process is asked to stop.
HURRY_SECONDS = 3.0

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Outage:
    """Why the database cannot be used, and since when (`time.monotonic`)."""

    reason: str
    since: float


class Retry:
    """Runs work in transactions, and retries with growing pauses while the database is away.

    One thread does the work; others may read the attributes and call `hurry`.

    Attributes:
        outage: not None while the database cannot be used.
        back_at: when the database last came back (`time.monotonic`); minus infinity if it was never away.
    """

    def __init__(self, storage: Storage, *, database_timeout: float) -> None:
        self.storage, self.database_timeout = storage, database_timeout
        self.outage: Outage | None = None
        self.back_at = float("-inf")
        self._hurry = Event()
        self._hurried_at = 0.0

    def do(
        self,
        work: Callable[[Connection], Result],
        transaction: Callable[[], AbstractContextManager[Connection]] | None = None,
    ) -> Result:
        """Run `work` in a transaction, by default a writing one, and retry while the database is away.

        Raises:
            DatabaseAwayError: it was away for too long.
        """

        def attempt() -> Result:
            with self.storage.time_limit(SILENCE_SECONDS), (transaction or self.storage.writing)() as connection:
                return work(connection)

        retrying = Retrying(
            retry=retry_if_exception(is_passing),
            stop=self._is_enough,
            wait=wait_random_exponential(multiplier=0.1, max=MAX_PAUSE_SECONDS),
            sleep=self._pause,
            before_sleep=self._note_outage,
            retry_error_callback=self._give_up,
        )
        result: Result = retrying(attempt)
        if self.outage:
            self.outage = None
            self.back_at = time.monotonic()
        return result

    def hurry(self) -> None:
        """From now on, give up after `HURRY_SECONDS` if the database is away."""
        if not self._hurry.is_set():
            self._hurried_at = time.monotonic()
            self._hurry.set()

    def seconds_left(self) -> float:
        """Return the seconds left after `hurry`; negative when they are over."""
        return self._hurried_at + HURRY_SECONDS - time.monotonic()

    def _is_enough(self, state: RetryCallState) -> bool:
        if self._hurry.is_set() and self.seconds_left() < 0:
            return True
        return time.monotonic() - state.start_time > self.database_timeout

    def _pause(self, seconds: float) -> None:
        if self._hurry.is_set():
            time.sleep(min(seconds, 0.5))
        else:
            self._hurry.wait(seconds)

    def _note_outage(self, state: RetryCallState) -> None:
        self.outage = Outage(reason=reason_of(_error(state)), since=state.start_time)
        self.storage.disconnect()

    def _give_up(self, state: RetryCallState) -> Any:
        error, seconds = _error(state), time.monotonic() - state.start_time
        raise DatabaseAwayError(
            f"{self.storage.shown_url} could not be used for {seconds:.0f} s: {reason_of(error)}."
        ) from error


def _error(state: RetryCallState) -> BaseException:
    """Return why a try failed."""
    error = state.outcome.exception() if state.outcome else None
    assert error is not None
    return error
