"""The database thread of a worker: claims, reports, leases and endings, so that no training waits.

The thread takes claims, writes what the trials of this process change, renews their leases, brings news of the other
trials, ends trials, and lets the worker be seen. When the database is away, what the trials change stays in memory. It
holds a connection only while it has something to say.
"""

import queue as thread_queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

from sqlalchemy.engine import Connection

from kmnist_search.database.retry import MAX_PAUSE_SECONDS, Retry
from kmnist_search.database.storage import Storage
from kmnist_search.database.trial_writer import Changes, write_changes
from kmnist_search.host.process import Owner
from kmnist_search.queue.queue import Claim, Counts, Queue
from kmnist_search.queue.workers import Registration, WorkerInfo
from kmnist_search.study.cached_storage import CachedStorage

#: How long a trial that was just claimed may take before the others are told of it; many are over before.
FIRST_FLUSH_SECONDS = 0.5
#: How often what the running trials report is written. Fast epochs are written together.
FLUSH_SECONDS = 5.0
#: How often, while trials run, news of the others are read for the pruner.
NEWS_SECONDS = 10.0
#: Where many workers share a study, each flushes more seldom, so that all together do not so more often than this.
FLUSHES_A_SECOND = 10.0
#: How often the worker is seen by the others while it has anything to say at all.
APPEAR_SECONDS = 10.0
#: How often owners that are gone are looked for.
RECOVER_SECONDS = 5.0
#: How long a connection stays open after a trial was claimed or ended: most likely another follows at once.
LINGER_SECONDS = 1.0

Result = TypeVar("Result")


class DatabaseThread:
    """Carries claims, changes and endings of trials to the database, and news back.

    Each call returns a future and never waits. To be entered, which starts the thread, and left, which ends it.

    Attributes:
        patience: does what is carried, again and again while the database is away.
        failure: not None once it has given up; nothing is carried any more.
        registration: how the others see this worker.
        counts: of the study, as of the last trial of this process that was claimed or ended.
    """

    def __init__(
        self,
        storage: Storage,
        queue: Queue,
        cached_storage: CachedStorage,
        *,
        lease_seconds: float,
        max_retries: int,
        database_timeout: float,
        counts: Counts,
        info: WorkerInfo,
    ) -> None:
        self.storage, self.queue, self.cached_storage = storage, queue, cached_storage
        self.lease_seconds, self.max_retries = lease_seconds, max_retries
        self.owner = Owner.this_process()
        self.registration = Registration(
            worker_id=uuid4().hex, study_id=queue.study_id, owner=self.owner, info=info, seconds=lease_seconds
        )
        self.patience = Retry(storage, database_timeout=database_timeout)
        self.failure: BaseException | None = None
        self.counts = counts
        self._held: dict[str, Claim] = {}
        self._lost: set[str] = set()
        self._jobs: thread_queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = thread_queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="database_thread", daemon=True)
        self._flush_at = self._renew_at = self._news_at = self._recover_at = self._let_go_at = self._appear_at = 0.0
        self._finished = 0
        self._began_at = time.monotonic()

    def __enter__(self) -> "DatabaseThread":
        self._thread.start()
        self._submit(self._appear_if_due)
        return self

    def __exit__(self, *_: object) -> None:
        self.patience.hurry()
        self._jobs.put(None)
        # It is a daemon: one that hangs in a connection does not keep the process, least of all if it was in a hurry.
        self._thread.join(max(self.patience.seconds_left(), 0.5))

    def claim(self, *, budget: int | None) -> "Future[Claim | None]":
        """Take the next waiting trial; None when there is none, or when `budget`, if any, are finished or running."""
        return self._submit(lambda: self._claim(budget))

    def finish(self, claim: Claim, *, epochs: int) -> "Future[bool]":
        """End a trial as it was told to the cached storage; False if it was no longer ours."""
        return self._submit(lambda: self._end(claim, partial(self.queue.finish, epochs=epochs), finished=True))

    def hand_back(self, claim: Claim, *, epochs: int, reason: str) -> "Future[bool]":
        """Put a trial back among the waiting; False if it was no longer ours."""
        end = partial(self.queue.hand_back, epochs=epochs, reason=reason)
        return self._submit(lambda: self._end(claim, end, finished=False))

    def refresh(self) -> "Future[None]":
        """Bring the cached storage up to date."""
        return self._submit(lambda: self.patience.do(self._read_news, self.storage.reading))

    def has_lost(self, claim: Claim) -> bool:
        """Return whether the trial has gone to someone else, because its lease was not renewed in time."""
        return claim.token in self._lost

    def abandon(self, claim: Claim) -> None:
        """Let go of a trial that was lost."""
        self._lost.discard(claim.token)
        self.cached_storage.end(claim.trial_id, finished=False)

    def _submit(self, job: Callable[[], Result]) -> "Future[Result]":
        future: Future[Result] = Future()
        self._jobs.put((job, future))
        return future

    # What follows runs in the thread

    def _run(self) -> None:
        while True:
            try:
                item = self._jobs.get(timeout=self._seconds_to_wait())
            except thread_queue.Empty:
                self._do(self._look_after, None)
                continue
            if item is None:
                self._do(lambda: self.patience.do(self.registration.leave), None)
                self.storage.let_go()
                return
            self._do(*item)
            self._let_go_at = time.monotonic() + LINGER_SECONDS
            if self._seconds_to_wait() == 0:
                self._do(self._look_after, None)

    def _do(self, job: Callable[[], Any], future: "Future[Any] | None") -> None:
        try:
            if self.failure is not None:
                raise self.failure
            result = job()
        except BaseException as error:
            self.failure = error
            if future is not None:
                future.set_exception(error)
        else:
            if future is not None:
                future.set_result(result)

    def _seconds_to_wait(self) -> float | None:
        due = [self._flush_at] if self._held and self.failure is None else []
        if self._let_go_at:
            due.append(self._let_go_at)
        return max(min(due) - time.monotonic(), 0.0) if due else None

    def _look_after(self) -> None:
        """Do what is due without having been asked for."""
        now = time.monotonic()
        if self._held and now >= self._flush_at:
            if self.cached_storage.has_changes() or now >= self._renew_at:
                self._flush()
                self._let_go_at = self._let_go_at or now
            self._flush_at = now + min(self._shared(FLUSH_SECONDS), self.lease_seconds / 4)
        if self._let_go_at and now >= self._let_go_at:
            self.storage.let_go()
            self._let_go_at = 0.0

    def _appear_if_due(self) -> None:
        if time.monotonic() >= self._appear_at:
            self.patience.do(self._appear)

    def _appear(self, connection: Connection) -> None:
        now = time.monotonic()
        self.registration.appear(connection, finished=self._finished, age=now - self._began_at)
        self._appear_at = now + min(self._shared(APPEAR_SECONDS), self.lease_seconds / 4)

    def _counts_when_seen(self, connection: Connection) -> Counts:
        self._appear(connection)
        return self.queue.counts(connection)

    def _claim(self, budget: int | None) -> Claim | None:
        self._appear_if_due()
        if time.monotonic() >= self._recover_at and self._is_calm():
            self._recover()
        claim = self._take(budget)
        if claim is None:
            if self._is_calm():
                self._recover()
            self.counts = self.patience.do(self.queue.counts)
            if self.counts.claimable(budget):
                claim = self._take(budget)
        if claim is None:
            return None
        counts = self.counts
        self.counts = replace(counts, running=counts.running + 1, waiting=max(counts.waiting - 1, 0))
        self._look_after_soon()
        self._held[claim.token] = claim
        news = partial(self._read_news, complete_until=claim.trial_id)
        self.patience.do(news, self.storage.reading)
        if not self.cached_storage.begin(claim.trial_id):  # this process was paused, and the trial is back in the queue
            del self._held[claim.token]
            return self._claim(budget)
        return claim

    def _look_after_soon(self) -> None:
        """Let a trial that was just claimed be told of soon; those already held are not put off by it."""
        now = time.monotonic()
        first, renewal = now + FIRST_FLUSH_SECONDS, now + self.lease_seconds / 4
        self._flush_at = min(self._flush_at, first) if self._held else first
        self._renew_at = min(self._renew_at, renewal) if self._held else renewal

    def _take(self, budget: int | None) -> Claim | None:
        token = uuid4().hex
        return self.patience.do(
            lambda connection: self.queue.claim(
                connection, self.owner, token=token, lease_seconds=self.lease_seconds, budget=budget
            )
        )

    def _is_calm(self) -> bool:
        """Return whether the others, too, have had time to come back: they shall not be taken for dead before."""
        return time.monotonic() >= self.patience.back_at + 3 * MAX_PAUSE_SECONDS

    def _recover(self) -> None:
        self.patience.do(partial(self.queue.recover, max_retries=self.max_retries))
        self._recover_at = time.monotonic() + RECOVER_SECONDS

    def _end(self, claim: Claim, end: Callable[[Connection, Claim, Changes], bool], *, finished: bool) -> bool:
        changes = self.cached_storage.take_changes(claim.trial_id)
        ended = claim.token in self._held and self.patience.do(lambda connection: end(connection, claim, changes))
        self._finished += finished and ended
        self.counts = self.patience.do(self._counts_when_seen)
        self._held.pop(claim.token, None)
        self._lost.discard(claim.token)
        self.cached_storage.end(claim.trial_id, finished=finished and ended)
        return ended

    def _flush(self) -> None:
        """Renew the leases, write what the trials have changed, and read news: three statements as a rule."""
        changed = [(claim, self.cached_storage.take_changes(claim.trial_id)) for claim in self._held.values()]
        # A pruner that has just noted a rung has looked at the others, and will not before the next epoch.
        will_look = any(changes and not changes.system_attributes for _, changes in changed)
        wants_news = time.monotonic() >= self._news_at and will_look

        def write(connection: Connection) -> set[str]:
            held = self.queue.renew(connection, self._held)
            for claim, changes in changed:
                if claim.token in held:
                    write_changes(connection, claim.trial_id, changes)
            if wants_news:
                self._read_news(connection)
            if time.monotonic() >= self._appear_at:
                self._appear(connection)
            return held

        held = self.patience.do(write)
        for token in self._held.keys() - held:
            del self._held[token]
            self._lost.add(token)
        self._renew_at = time.monotonic() + self.lease_seconds / 4

    def _read_news(self, connection: Connection, *, complete_until: int | None = None) -> None:
        self.cached_storage.read_news(connection, complete_until=complete_until)
        self._news_at = time.monotonic() + self._shared(NEWS_SECONDS)

    def _shared(self, seconds: float) -> float:
        """Return how long to wait before what is done every so many seconds, given how many others do it, too."""
        return max(seconds, self.cached_storage.num_running() / FLUSHES_A_SECOND)
