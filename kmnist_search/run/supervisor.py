"""The supervisor of several worker processes: it passes on their events, replaces dead ones, and stops all.

The parent keeps nothing on a GPU, and while the workers work it asks no database: each tells how it sees the study.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from kmnist_search.database.errors import when_it_answers
from kmnist_search.engine.replica import Epoch
from kmnist_search.errors import KmnistSearchError, WorkerDiedError
from kmnist_search.host.signals import StopSignals
from kmnist_search.run.options import RunOptions
from kmnist_search.run.placement import Place
from kmnist_search.run.search import Search
from kmnist_search.run.worker_process import Broke, Ended, Failed, Message, Told, work_for_parent
from kmnist_search.study.status import Progress, status_of
from kmnist_search.worker.events import (
    DatabaseAway,
    DatabaseBack,
    EpochDone,
    Event,
    KernelsMissing,
    NotShown,
    StoppedBy,
    Stopping,
    TrialEnded,
    TrialStarted,
    Waiting,
    WorkerDied,
)

#: So many deaths of one worker in a row, without a trial that it finished, are no accident. Fewer than the losses after
#: which a trial is failed: a GPU that is broken shall not fail one trial after another.
DEATHS_IN_A_ROW = 3
#: A worker stops at the next step, and gives a database that is away a few seconds; one that takes longer hangs.
STOP_SECONDS = 60.0

#: A process that has imported torch cannot be forked: its threads and its CUDA do not come along.
SPAWN = multiprocessing.get_context("spawn")


#: What all workers may tell at the same time, and is told once.
SharedNews = DatabaseAway | DatabaseBack | Stopping | KernelsMissing | NotShown | Waiting


@dataclass(eq=False, kw_only=True)
class _Running:
    """A trial at work in one of the workers."""

    params: dict[str, Any]
    begun: float
    epoch: Epoch | None = None


@dataclass(eq=False, kw_only=True)
class _Child:
    """A worker process, what it works on, and how often its predecessors in this place have died in a row."""

    number: int
    place: Place
    process: SpawnProcess
    pipe: "Connection[Any, Message]"
    deaths: int
    running: dict[int, _Running] = field(default_factory=dict)
    last: Message | None = None


class Supervisor:
    """Worker processes that share one run. To be entered, and left, which ends what is left of them.

    Attributes:
        stopped_by: after `work` is exhausted, why, as of a `Worker`.
    """

    def __init__(
        self,
        search: Search,
        prepare: Callable[[RunOptions], Search],
        places: Sequence[Place],
        *,
        signals: StopSignals,
    ) -> None:
        """Start nothing yet.

        Args:
            search: what is worked on.
            prepare: makes the same search ready in another process; must be picklable.
            places: one for each worker.
            signals: ask for a stop.
        """
        self.study, self.options, self.prepare, self.signals = search.study, search.options, prepare, signals
        self.stopped_by: StoppedBy = "budget"
        self._progress = when_it_answers()(status_of, self.study).progress
        self.study.storage.let_go()
        self._vacant = [(number, place, 0) for number, place in enumerate(places, start=1)]
        self._children: list[_Child] = []
        self._reasons: set[StoppedBy] = set()
        self._error: KmnistSearchError | None = None
        self._stop_at: float | None = None
        self._without_database: set[int] = set()
        self._is_stopping = self._lacks_kernels = self._lacks_show = self._is_idle = False

    def __enter__(self) -> "Supervisor":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        at_once = kind is not None and issubclass(kind, KeyboardInterrupt)
        for child in self._children:
            child.pipe.close()  # else one that has much to tell would wait for us
            child.process.kill() if at_once else child.process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for child in self._children:
            _end(child.process, seconds=deadline - time.monotonic())

    def progress(self) -> Progress:
        """Return how far the study has come, as far as the workers have told."""
        running = sum(len(child.running) for child in self._children)
        return replace(self._progress, counts=self._progress.counts.with_at_least(running=running))

    def work(self) -> Iterator[Event]:
        """Let the workers run trials until each has reached a limit, found none left to claim, or been stopped.

        Raises:
            WorkerDiedError: a worker broke, or died again and again.
            KmnistSearchError: what else ended a worker. The others were stopped, with checkpoints.
        """
        self._look_after()
        while self._children:
            ready = wait([child.pipe for child in self._children], timeout=0.2)
            for child in [child for child in self._children if child.pipe in ready]:
                try:
                    message = child.pipe.recv()
                except (EOFError, OSError):  # the latter where it was killed while it told something
                    yield from self._over(child)
                else:
                    yield from self._heard(child, message)
            self._look_after()
        if self._error is not None:
            raise self._error
        self.stopped_by = self._put_together()

    def _start(self, number: int, place: Place, *, deaths: int) -> None:
        ours, theirs = SPAWN.Pipe(duplex=False)
        process = SPAWN.Process(
            target=work_for_parent, args=(theirs, place, self.prepare, self.options), name=f"worker {number}"
        )
        with _signals_wait_for_the_child():
            process.start()
        theirs.close()  # so that ours ends when the child does
        self._children.append(_Child(number=number, place=place, process=process, pipe=ours, deaths=deaths))

    def _heard(self, child: _Child, message: Message) -> Iterator[Event]:
        if not isinstance(message, Told):
            child.last = message
            return
        event = message.event
        match event:
            case TrialStarted():
                child.running[event.number] = _Running(params=event.params, begun=time.monotonic())
                self._is_idle = False
            case EpochDone() if event.number in child.running:
                child.running[event.number].epoch = event.epoch
            case TrialEnded():
                child.running.pop(event.number, None)
                if event.outcome in ("complete", "pruned", "failed"):
                    child.deaths = 0
        if message.progress is not None:
            self._learn(message.progress)
        if not isinstance(event, SharedNews) or self._is_new(child, event):
            yield event

    def _learn(self, progress: Progress) -> None:
        """Take over what a worker sees, unless another has seen more; each may know a best that others do not yet."""
        if progress.counts.finished < self._progress.counts.finished:
            return
        best = self.study.ranked([trial for trial in (self._progress.best, progress.best) if trial is not None])
        self._progress = replace(progress, best=best[0] if best else None)

    def _is_new(self, child: _Child, event: SharedNews) -> bool:
        """Return whether the first worker tells this, or, of the database's return, the last."""
        match event:
            case DatabaseAway():
                self._without_database.add(child.number)
                return len(self._without_database) == 1
            case DatabaseBack():
                self._without_database.discard(child.number)
                return not self._without_database
            case Stopping():
                before, self._is_stopping = self._is_stopping, True
                return not before
            case KernelsMissing():
                before, self._lacks_kernels = self._lacks_kernels, True
                return not before
            case NotShown():
                before, self._lacks_show = self._lacks_show, True
                return not before
            case Waiting():  # told when all of them do
                before, self._is_idle = self._is_idle, not any(each.running for each in self._children)
                return self._is_idle and not before

    def _over(self, child: _Child) -> Iterator[Event]:
        """See to a worker whose pipe has ended, which is so when its process has."""
        self._children.remove(child)
        self._without_database.discard(child.number)
        child.pipe.close()
        _end(child.process, seconds=STOP_SECONDS)
        match child.last:
            case Ended(stopped_by=reason):
                self._reasons.add(reason)
                if reason == "target":
                    self._stop()
            case Failed(error=error):
                self._fail(error)
            case Broke(traceback=text):
                self._fail(WorkerDiedError(f"worker {child.number} ({child.place.device}) broke.\n{text}"))
            case _:
                yield from self._died(child)

    def _died(self, child: _Child) -> Iterator[Event]:
        """Tell of a death, and let another worker take the place if this is no habit."""
        how = _how_it_died(child.process.exitcode)
        for number, running in child.running.items():
            yield self._lost(number, running, f"worker {child.number} {how}")
        if self._stop_at is not None:
            return
        yield WorkerDied(worker=child.number, device=child.place.device, how=how)
        deaths = child.deaths + 1
        if deaths < DEATHS_IN_A_ROW:
            self._vacant.append((child.number, child.place, deaths))
            return
        self._fail(
            WorkerDiedError(
                f"worker {child.number} ({child.place.device}) died {deaths} times in a row without finishing a trial, "
                f"the last time it {how}. The other workers were stopped. Its trial goes back to the queue with the "
                "next run, and is failed if it loses its worker too often."
            )
        )

    def _lost(self, number: int, running: _Running, reason: str) -> TrialEnded:
        epoch = running.epoch
        return TrialEnded(
            number=number,
            params=running.params,
            outcome="lost",
            value=None if epoch is None else float(getattr(epoch, self.study.metric)),
            reason=reason,
            epochs=0 if epoch is None else epoch.number,
            seconds=time.monotonic() - running.begun,
        )

    def _fail(self, error: KmnistSearchError) -> None:
        self._error = self._error or error
        self._stop()

    def _stop(self) -> None:
        """Ask all workers to stop, once: each hands its trial back with a checkpoint."""
        if self._stop_at is not None:
            return
        self._stop_at = time.monotonic() + STOP_SECONDS
        received = self.signals.received
        # Ctrl-C has reached them, too, and a second SIGINT would end them at once.
        number = signal.SIGTERM if received in (None, signal.SIGINT) else received
        for child in self._children:
            _send(child.process, number)

    def _look_after(self) -> None:
        """Start whom there is a place for, and do what time or a signal demands."""
        if self.signals.received is not None:
            self._stop()
        if self._stop_at is not None:
            self._vacant.clear()
            if time.monotonic() > self._stop_at:
                for child in self._children:
                    child.process.kill()
        elif not self._without_database:  # else a new one would not even get to the study
            for number, place, deaths in self._vacant:
                self._start(number, place, deaths=deaths)
            self._vacant.clear()

    def _put_together(self) -> StoppedBy:
        """Return why the run has ended, given why the workers have."""
        if "budget" in self._reasons:
            return "budget"
        if self.signals.received is not None:
            return "signal"
        if "target" in self._reasons:  # the others were stopped by a signal of ours
            return "target"
        return next((reason for reason in ("signal", "timeout", "max_trials") if reason in self._reasons), "queue")


@contextmanager
def _signals_wait_for_the_child() -> Iterator[None]:
    """Start a process with its signals blocked: what comes while it imports torch finds it ready to stop in order."""
    resource_tracker.ensure_running()  # starting it unblocks them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, StopSignals.SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _send(process: SpawnProcess, number: signal.Signals) -> None:
    """Send a signal, unless the process has ended: its id may be another's by now."""
    if process.is_alive() and process.pid is not None:
        os.kill(process.pid, number)


def _end(process: SpawnProcess, *, seconds: float) -> None:
    """Wait for the end of a process for so long, then kill it."""
    process.join(max(seconds, 0.0))
    if process.is_alive():
        process.kill()
        process.join()


def _how_it_died(exit_code: int | None) -> str:
    if exit_code is None or exit_code >= 0:
        return f"ended with exit code {exit_code}"
    name = signal.Signals(-exit_code).name
    return f"was killed by {name}" + (" (as happens when memory runs out)" if name == "SIGKILL" else "")
