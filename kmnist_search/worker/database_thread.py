"""The database thread of a worker: it does all database work, so that no training waits.

The thread claims and ends trials, writes what this process's trials change, renews their leases, reads the other
trials, and shows that the worker is alive. While the database is away, changes stay in memory. The thread holds a
connection only while it needs one.
"""

import queue as thread_queue
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

from sqlalchemy.engine import Connection

from kmnist_search.database.retry import MAX_PAUSE_SECONDS, Retry
from kmnist_search.database.trial_writer import PAUSED_KEY, write_changes
from kmnist_search.host.process import Owner
from kmnist_search.queue import leases
from kmnist_search.queue.halt import Halt, read_halt
from kmnist_search.queue.queue import Claim, Counts
from kmnist_search.queue.workers import Registration, WorkerInfo, registered_workers
from kmnist_search.study.cached_storage import CachedStorage
from kmnist_search.study.halving import Halving
from kmnist_search.study.study import SearchStudy

#: How soon after a claim the first reports are written. Many trials end earlier.
FIRST_FLUSH_SECONDS = 0.5
#: How often the reports of running trials are written. Fast epochs are written together.
FLUSH_SECONDS = 5.0
#: How often the other trials are read for the pruner while trials run.
NEWS_SECONDS = 10.0
#: All workers of a study together flush at most this often; each flushes less often where there are many.
FLUSHES_A_SECOND = 10.0
#: How often the worker shows that it is alive, while it uses the database anyway.
HEARTBEAT_SECONDS = 10.0
#: How often trials of dead owners are recovered.
RECOVER_SECONDS = 5.0
#: How long a connection stays open after a claim or an ending: the next call usually follows at once.
LINGER_SECONDS = 1.0

Result = TypeVar("Result")


class DatabaseThread:
    """Writes claims, changes and endings of trials to the database, and reads news.

    Each call returns a future and never waits. A context manager: entering starts the thread, leaving ends it.

    Attributes:
        retry: runs each transaction, and retries it while the database is away.
        failure: the error after which the thread gave up, or None; it then does no more work.
        registration: this worker as others see it.
        counts: the study's, as of the last claim or ending of a trial in this process.
        halt: the study's, as of the last heartbeat.
    """

    def __init__(
        self,
        study: SearchStudy,
        cached_storage: CachedStorage,
        *,
        lease_seconds: float,
        max_retries: int,
        database_timeout: float,
        counts: Counts,
        info: WorkerInfo,
        halving: Halving | None = None,
    ) -> None:
        self.storage, self.queue, self.cached_storage = study.storage, study.queue, cached_storage
        self.lease_seconds, self.max_retries, self.halving = lease_seconds, max_retries, halving
        self.owner = Owner.this_process()
        self.registration = Registration(
            worker_id=uuid4().hex, study_id=study.queue.study_id, owner=self.owner, info=info, seconds=lease_seconds
        )
        self.retry = Retry(study.storage, database_timeout=database_timeout)
        self.failure: BaseException | None = None
        self.counts = counts
        self.halt: Halt | None = None
        self._held: dict[str, Claim] = {}
        self._lost: set[str] = set()
        self._jobs: thread_queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = thread_queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="database_thread", daemon=True)
        self._flush_at = self._renew_at = self._news_at = self._recover_at = self._release_at = self._heartbeat_at = 0.0
        self._finished = 0
        self._began_at = time.monotonic()

    def __enter__(self) -> "DatabaseThread":
        self._thread.start()
        self._submit(self._heartbeat_if_due)
        return self

    def __exit__(self, *_: object) -> None:
        self.retry.hurry()
        self._jobs.put(None)
        # A daemon thread that hangs in a connection does not keep the process alive.
        self._thread.join(max(self.retry.seconds_left(), 0.5))

    def claim(self, *, budget: int | None) -> "Future[Claim | None]":
        """Claim the next waiting trial.

        The result is None if there is none, if `budget` trials are finished or running, or if the study is halted.
        """
        return self._submit(lambda: self._claim(budget))

    def claim_twins(self, claim: Claim, *, most: int) -> "Future[list[Claim]]":
        """Claim waiting trials that are best computed together with a claimed one, `most` of them or fewer.

        Fewer, if they are then left to other workers of the study, too.
        """
        return self._submit(lambda: self._claim_twins(claim, most))

    def finish(self, claim: Claim, *, epochs: int) -> "Future[bool]":
        """End a trial with the state in the cached storage; False if this worker had lost it."""
        return self._submit(lambda: self._end(claim, epochs))

    def hand_back(self, claim: Claim, *, epochs: int, reason: str) -> "Future[bool]":
        """Put a trial back into the queue; False if this worker had lost it."""
        return self._submit(lambda: self._end(claim, epochs, reason))

    def recount(self) -> "Future[None]":
        """Recover lost trials, and bring `counts` up to date."""
        return self._submit(self._recount)

    def refresh(self) -> "Future[None]":
        """Bring the cached storage up to date."""
        return self._submit(lambda: self.retry.do(self._read_news, self.storage.reading))

    def has_lost(self, claim: Claim) -> bool:
        """Return whether this worker has lost the trial, because its lease was not renewed in time."""
        return claim.token in self._lost

    def abandon(self, claim: Claim) -> None:
        """Forget a lost trial."""
        self._lost.discard(claim.token)
        self.cached_storage.end(claim.trial_id, finished=False)

    def _submit(self, job: Callable[[], Result]) -> "Future[Result]":
        future: Future[Result] = Future()
        self._jobs.put((job, future))
        return future

    # The methods below run in the thread.

    def _run(self) -> None:
        while True:
            try:
                item = self._jobs.get(timeout=self._seconds_to_wait())
            except thread_queue.Empty:
                self._do(self._flush_if_due, Future())
                continue
            if item is None:
                self._do(lambda: self.retry.do(self.registration.leave), Future())
                self.storage.disconnect()
                return
            self._do(*item)
            self._release_at = time.monotonic() + LINGER_SECONDS
            if self._seconds_to_wait() == 0:
                self._do(self._flush_if_due, Future())

    def _do(self, job: Callable[[], Any], future: "Future[Any]") -> None:
        try:
            if self.failure is not None:
                raise self.failure
            future.set_result(job())
        except BaseException as error:
            self.failure = error
            future.set_exception(error)

    def _seconds_to_wait(self) -> float | None:
        due = [self._flush_at] if self._held and self.failure is None else []
        if self._release_at:
            due.append(self._release_at)
        return max(min(due) - time.monotonic(), 0.0) if due else None

    def _flush_if_due(self) -> None:
        """Flush and release the connection when that is due."""
        now = time.monotonic()
        if self._held and now >= self._flush_at:
            if self.cached_storage.has_changes() or now >= self._renew_at:
                self._flush()
                self._release_at = self._release_at or now
            self._flush_at = now + min(self._shared(FLUSH_SECONDS), self.lease_seconds / 4)
        if self._release_at and now >= self._release_at:
            self.storage.disconnect()
            self._release_at = 0.0

    def _heartbeat_if_due(self) -> None:
        if time.monotonic() >= self._heartbeat_at:
            self.retry.do(self._heartbeat)

    def _heartbeat(self, connection: Connection) -> None:
        now = time.monotonic()
        self.registration.heartbeat(connection, finished=self._finished, age=now - self._began_at)
        self.halt = read_halt(connection, self.queue.study_id)
        self._heartbeat_at = now + min(self._shared(HEARTBEAT_SECONDS), self.lease_seconds / 4)

    def _counts_when_seen(self, connection: Connection) -> Counts:
        self._heartbeat(connection)
        return self.queue.counts(connection)

    def _claim(self, budget: int | None) -> Claim | None:
        if self.halt is None:
            self._heartbeat_if_due()
        else:
            self.retry.do(self._heartbeat)
        if self.halt is not None:
            return None
        if time.monotonic() >= self._recover_at and self._is_calm():
            self._recover()
        claim = self._claim_once(budget)
        if claim is None:
            self._recount()
            if self.counts.claimable(budget) or (self.halving is not None and not self.counts.running):
                claim = self._claim_once(budget, is_last_chance=not self.counts.claimable(budget))
        if claim is None or self._holds(claim):
            return claim
        return self._claim(budget)

    def _recount(self) -> None:
        self._heartbeat_if_due()
        if self._is_calm():
            self._recover()
        self.counts = self.retry.do(self.queue.counts)

    def _claim_twins(self, claim: Claim, most: int) -> list[Claim]:
        def found(connection: Connection) -> tuple[list[int], int]:
            workers = [each for each in registered_workers(connection, self.queue.study_id) if not each.is_gone]
            share = -(-(self.queue.counts(connection).waiting + 1) // max(len(workers), 1)) - 1
            return self.queue.twins(connection, claim), min(most, share)

        ids, number = self.retry.do(found, self.storage.reading)
        claims: list[Claim] = []
        while len(claims) < number and (twin := self._claim_once(None, only=ids)) is not None:
            claims += [twin] if self._holds(twin) else []
        return claims

    def _holds(self, claim: Claim) -> bool:
        """Prepare the work on a claimed trial; return False if the process was paused, and the trial was requeued."""
        counts = self.counts
        self.counts = replace(counts, running=counts.running + 1, waiting=max(counts.waiting - 1, 0))
        self._schedule_flush()
        self._held[claim.token] = claim
        news = partial(self._read_news, complete_until=claim.trial_id)
        self.retry.do(news, self.storage.reading)
        if self.cached_storage.begin(claim.trial_id):
            return True
        del self._held[claim.token]
        return False

    def _schedule_flush(self) -> None:
        """Schedule the first flush of a new trial soon, without delaying that of trials already held."""
        now = time.monotonic()
        first, renewal = now + FIRST_FLUSH_SECONDS, now + self.lease_seconds / 4
        self._flush_at = min(self._flush_at, first) if self._held else first
        self._renew_at = min(self._renew_at, renewal) if self._held else renewal

    def _claim_once(
        self, budget: int | None, only: Collection[int] | None = None, *, is_last_chance: bool = False
    ) -> Claim | None:
        """Claim a paused trial that shall resume, or else a waiting one.

        Args:
            budget: see `Queue.claim`.
            only: see `Queue.claim`.
            is_last_chance: see `Halving.next_paused`.
        """
        paused = None
        if self.halving is not None and only is None:
            self.retry.do(self._read_news, self.storage.reading)
            trials = self.cached_storage.get_all_trials(self.cached_storage.study_id, deepcopy=False)
            paused = self.halving.next_paused(trials, is_last_chance=is_last_chance)
        claim = partial(
            self.queue.claim,
            owner=self.owner,
            token=uuid4().hex,
            lease_seconds=self.lease_seconds,
            budget=budget,
            only=only,
            paused=paused,
        )
        return self.retry.do(claim)

    def _is_calm(self) -> bool:
        """Return whether the other workers, too, have had time to reconnect: before that, none is taken for dead."""
        return time.monotonic() >= self.retry.back_at + 3 * MAX_PAUSE_SECONDS

    def _recover(self) -> None:
        self.retry.do(partial(leases.recover, study_id=self.queue.study_id, max_retries=self.max_retries))
        self._recover_at = time.monotonic() + RECOVER_SECONDS

    def _end(self, claim: Claim, epochs: int, reason: str | None = None) -> bool:
        """Finish a trial, or hand it back for a reason."""
        end = self.queue.finish if reason is None else partial(self.queue.hand_back, reason=reason)
        changes = self.cached_storage.take_changes(claim.trial_id)
        rung = self.cached_storage.get_trial(claim.trial_id).system_attrs.get(PAUSED_KEY)
        if reason is None and rung is not None:  # written with the ending, even if a flush has taken it before
            changes.system_attributes[PAUSED_KEY] = rung
        end = partial(end, claim=claim, changes=changes, epochs=epochs)
        ended = claim.token in self._held and self.retry.do(end)
        finished = ended and reason is None
        self._finished += finished
        self.counts = self.retry.do(self._counts_when_seen)
        self._held.pop(claim.token, None)
        self._lost.discard(claim.token)
        self.cached_storage.end(claim.trial_id, finished=finished)
        return ended

    def _flush(self) -> None:
        """Renew the leases, write the changes of the trials, and read news: usually three statements."""
        changed = [(claim, self.cached_storage.take_changes(claim.trial_id)) for claim in self._held.values()]
        # A pruner that has just stored a rung has read the other trials, and reads them again only at the next epoch.
        will_look = any(changes and not changes.system_attributes for _, changes in changed)
        wants_news = time.monotonic() >= self._news_at and will_look

        def write(connection: Connection) -> set[str]:
            held = leases.renew(connection, self._held)
            for claim, changes in changed:
                if claim.token in held:
                    write_changes(connection, claim.trial_id, changes)
            if wants_news:
                self._read_news(connection)
            if time.monotonic() >= self._heartbeat_at:
                self._heartbeat(connection)
            return held

        held = self.retry.do(write)
        for token in self._held.keys() - held:
            del self._held[token]
            self._lost.add(token)
        self._renew_at = time.monotonic() + self.lease_seconds / 4

    def _read_news(self, connection: Connection, *, complete_until: int | None = None) -> None:
        self.cached_storage.read_news(connection, complete_until=complete_until)
        self._news_at = time.monotonic() + self._shared(NEWS_SECONDS)

    def _shared(self, seconds: float) -> float:
        """Return an interval, lengthened where many running trials share the study."""
        return max(seconds, self.cached_storage.num_running() / FLUSHES_A_SECOND)
