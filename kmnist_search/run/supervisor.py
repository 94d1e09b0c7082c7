"""The supervisor of several worker processes: it forwards their events, replaces dead ones, and stops them all.

The parent process uses no GPU, and no database while the workers run: each worker sends its progress.
"""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import wait

import torch

from kmnist_search.database.errors import when_it_answers
from kmnist_search.engine import verdict
from kmnist_search.engine.compile_ahead import compiled_ahead
from kmnist_search.errors import DeviceLostError, KmnistSearchError, WorkerDiedError
from kmnist_search.host.signals import StopSignals
from kmnist_search.run.options import RunOptions
from kmnist_search.run.placement import Place
from kmnist_search.run.search import Search
from kmnist_search.run.worker_process import Message, RunningTrial, WorkerEvent, WorkerProcess
from kmnist_search.study.status import Progress, status_of
from kmnist_search.worker.events import (
    DatabaseAway,
    DatabaseBack,
    EpochDone,
    Event,
    RunWarning,
    Stopping,
    TrialEnded,
    TrialStarted,
    Waiting,
)
from kmnist_search.worker.stop import StoppedBy

#: After this many deaths in a row without a finished trial, the run fails. It is below the number of losses after which
#: a trial fails, because a broken GPU must not fail one trial after another.
DEATHS_IN_A_ROW = 3
#: A worker stops at the next step, and waits a few seconds for a database that is away; a slower one hangs.
STOP_SECONDS = 60.0

#: Random trials whose kernels are compiled ahead; 20 of the study kmnist need all 37 kernels that its space can need.
NETS_COMPILED_AHEAD = 40

#: Events that all workers may send at the same time, and that are reported once.
SharedEvent = DatabaseAway | DatabaseBack | Stopping | RunWarning | Waiting


class Supervisor:
    """Worker processes that share one run. A context manager: leaving it ends the remaining processes.

    Attributes:
        stopped_by: why the work ended, set at its end, as for a `Worker`.
    """

    def __init__(
        self,
        search: Search,
        prepare: Callable[[RunOptions], Search],
        places: Sequence[Place],
        *,
        signals: StopSignals,
    ) -> None:
        """Prepare the supervisor; `work` starts the processes.

        Args:
            search: that the workers share.
            prepare: returns the same search in another process; must be picklable.
            places: one for each worker.
            signals: ask for a stop.
        """
        self.study, self.options, self.prepare, self.signals = search.study, search.options, prepare, signals
        self._file = search.file
        self.stopped_by: StoppedBy = "budget"
        self._progress = when_it_answers()(status_of, self.study).progress
        self.study.storage.disconnect()
        self._vacant = [(number, place, 0) for number, place in enumerate(places, start=1)]
        self._children: list[WorkerProcess] = []
        self._reasons: set[StoppedBy] = set()
        self._error: KmnistSearchError | None = None
        self._stop_at: float | None = None
        self._without_database: set[int] = set()
        self._reported: set[SharedEvent] = set()
        self._is_idle = False

    def __enter__(self) -> "Supervisor":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        at_once = kind is not None and issubclass(kind, KeyboardInterrupt)
        for child in self._children:
            child.pipe.close()  # else a process with many messages would block on a full pipe
            child.send(signal.SIGKILL if at_once else signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for child in self._children:
            child.end(seconds=deadline - time.monotonic())

    def progress(self) -> Progress:
        """Return the progress of the study as the workers have reported it."""
        running = sum(len(child.running) for child in self._children)
        return replace(self._progress, counts=self._progress.counts.with_at_least(running=running))

    def work(self) -> Iterator[Event]:
        """Let the workers run trials until each has reached a limit, found no trial to claim, or was stopped.

        Raises:
            WorkerDiedError: a worker failed unexpectedly, or died repeatedly.
            KmnistSearchError: another error ended a worker. The others were stopped, with checkpoints.
        """
        yield from self._prepared_gpus()
        self._start_or_stop()
        while self._children:
            ready = wait([child.pipe for child in self._children], timeout=0.2)
            for child in [child for child in self._children if child.pipe in ready]:
                try:
                    message = child.pipe.recv()
                except (EOFError, OSError):  # OSError if it was killed while it sent a message
                    yield from self._ended(child)
                else:
                    yield from self._received(child, message)
            self._start_or_stop()
        if self._error is not None:
            raise self._error
        self.stopped_by = self._reason()

    def _prepared_gpus(self) -> Iterator[RunWarning]:
        """Check the GPUs that are new and compile their kernels, before a worker uses any."""
        devices = [torch.device(name) for name in dict.fromkeys(place.device for _, place, _ in self._vacant)]
        gpus = [device for device in devices if device.type == "cuda"]
        nets = self._file.sample(NETS_COMPILED_AHEAD) if gpus else []
        for texts in (
            *(verdict.told(gpu) for gpu in gpus),  # first: some GPUs take one process at a time
            *(compiled_ahead(nets, gpu, is_stopped=lambda: self.signals.received is not None) for gpu in gpus),
        ):
            for text in texts:
                warning = RunWarning(text=text)
                if warning not in self._reported:  # GPUs of one model share a verdict
                    self._reported.add(warning)
                    yield warning

    def _received(self, child: WorkerProcess, message: Message) -> Iterator[Event]:
        if not isinstance(message, WorkerEvent):
            child.ending = message
            return
        event = message.event
        match event:
            case TrialStarted():
                child.running[event.number] = RunningTrial(params=event.params, begun=time.monotonic())
                self._is_idle = False
            case EpochDone() if event.number in child.running:
                child.running[event.number].epoch = event.epoch
            case TrialEnded():
                child.running.pop(event.number, None)
                if event.outcome in ("complete", "paused", "pruned", "failed"):
                    child.deaths = 0
        if message.progress is not None:
            self._update_progress(message.progress)
        if not isinstance(event, SharedEvent) or self._is_new(child, event):
            yield event

    def _update_progress(self, progress: Progress) -> None:
        """Take over the progress of a worker, unless another has seen more; keep the best trial of both."""
        if progress.counts.finished < self._progress.counts.finished:
            return
        best = self.study.ranked([trial for trial in (self._progress.best, progress.best) if trial is not None])
        self._progress = replace(progress, best=best[0] if best else None)

    def _is_new(self, child: WorkerProcess, event: SharedEvent) -> bool:
        """Return whether to report this: the first worker counts, or the last for the database's return."""
        match event:
            case DatabaseAway():
                self._without_database.add(child.number)
                return len(self._without_database) == 1
            case DatabaseBack():
                self._without_database.discard(child.number)
                return not self._without_database
            case Stopping() | RunWarning():
                is_new = event not in self._reported
                self._reported.add(event)
                return is_new
            case Waiting():  # reported when all workers wait
                before, self._is_idle = self._is_idle, not any(each.running for each in self._children)
                return self._is_idle and not before

    def _ended(self, child: WorkerProcess) -> Iterator[Event]:
        """Handle the end of a worker, which is seen by the end of its pipe."""
        self._children.remove(child)
        self._without_database.discard(child.number)
        child.pipe.close()
        child.end(seconds=STOP_SECONDS)
        match child.ending:
            case None:
                yield from self._died(child, child.how_it_died)
            case DeviceLostError():
                yield from self._died(child, f"lost its GPU: {child.ending}")
            case KmnistSearchError():
                self._fail(child.ending)
            case reason:
                self._reasons.add(reason)
                if reason in ("target", "command"):
                    self._stop()

    def _died(self, child: WorkerProcess, how: str) -> Iterator[Event]:
        """Report a death, and replace the worker unless it died too often; then its GPU is left out."""
        for number, running in child.running.items():
            yield self._lost(number, running, f"worker {child.number} {how}")
        if self._stop_at is not None:
            return
        yield RunWarning(text=f"worker {child.number} ({child.place.device}) {how}; its trials go back to the queue")
        deaths = child.deaths + 1
        if deaths < DEATHS_IN_A_ROW:
            self._vacant.append((child.number, child.place, deaths))
            return
        if child.place.device != "cpu" and (self._children or self._vacant or self._reasons):
            died = f"its worker died {deaths} times in a row without finishing a trial, the last time it {how}"
            yield RunWarning(text=f"{child.place.device} is left out: {died}. The other GPUs continue")
            return
        self._fail(
            WorkerDiedError(
                f"worker {child.number} ({child.place.device}) died {deaths} times in a row without finishing a trial, "
                f"the last time it {how}. The other workers were stopped. The next run puts its trial "
                "back into the queue; a trial that loses its worker too often fails."
            )
        )

    def _lost(self, number: int, running: RunningTrial, reason: str) -> TrialEnded:
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
        # Ctrl-C has reached the workers, too, and a second SIGINT would end them at once.
        number = signal.SIGTERM if received in (None, signal.SIGINT) else received
        for child in self._children:
            child.send(number)

    def _start_or_stop(self) -> None:
        """Start workers in vacant places, and stop all on a signal or when time is up."""
        if self.signals.received is not None:
            self._stop()
        if self._stop_at is not None:
            self._vacant.clear()
            if time.monotonic() > self._stop_at:
                for child in self._children:
                    child.send(signal.SIGKILL)
        elif not self._without_database:  # else a new worker could not open the study
            while self._vacant:
                self._children.append(WorkerProcess(*self._vacant.pop(0), self.prepare, self.options))

    def _reason(self) -> StoppedBy:
        """Return why the run ended, from the reasons of the workers."""
        if "budget" in self._reasons:
            return "budget"
        if self.signals.received is not None:
            return "signal"
        # After "target" and "command" the others were stopped by a signal of ours.
        order: Sequence[StoppedBy] = ("target", "command", "patience", "signal", "timeout", "max_trials", "elsewhere")
        return next((reason for reason in order if reason in self._reasons), "queue")
