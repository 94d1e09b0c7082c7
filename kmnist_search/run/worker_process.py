"""One of several worker processes: its work, the messages that it sends, and the process as its parent sees it."""

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import current_process, parent_process
from multiprocessing.connection import Connection
from typing import Any

import torch

from kmnist_search.database.errors import DATABASE_ERRORS, reason_of
from kmnist_search.engine import verdict
from kmnist_search.engine.device import first_line, is_lost, is_out_of_memory
from kmnist_search.engine.replica import Epoch
from kmnist_search.engine.verdict import Verdict
from kmnist_search.errors import DeviceLostError, KmnistSearchError, WorkerDiedError, WorkError
from kmnist_search.host.forks import FORKED, without_main_module
from kmnist_search.host.signals import StopSignals, blocked
from kmnist_search.run.options import RunOptions
from kmnist_search.run.placement import Place
from kmnist_search.run.search import Search
from kmnist_search.study.status import Progress
from kmnist_search.worker.events import Event, TrialEnded, TrialStarted
from kmnist_search.worker.stop import StoppedBy

#: Starts processes on GPUs: each imports torch anew, because a process that has used CUDA cannot be forked.
SPAWNED = multiprocessing.get_context("spawn")


@dataclass(frozen=True, kw_only=True)
class WorkerEvent:
    """An event; at the start and end of a trial also the study's progress as this worker sees it."""

    event: Event
    progress: Progress | None


#: The last message is why the worker stopped, or the error that ended it.
Message = WorkerEvent | StoppedBy | KmnistSearchError


@dataclass(eq=False, kw_only=True)
class RunningTrial:
    """A trial that one of the workers trains."""

    params: dict[str, Any]
    begun: float
    epoch: Epoch | None = None


class WorkerProcess:
    """A worker process as its parent sees it.

    Attributes:
        deaths: how many predecessors in its place died in a row without a finished trial.
        pipe: receives its messages, and ends when the process ends.
        running: its trials, by number.
        ending: its last message, if that said how it ended.
    """

    def __init__(
        self, number: int, place: Place, deaths: int, prepare: Callable[[RunOptions], Search], options: RunOptions
    ) -> None:
        self.number, self.place, self.deaths = number, place, deaths
        self.running: dict[int, RunningTrial] = {}
        self.ending: StoppedBy | KmnistSearchError | None = None
        self.pipe: Connection[Any, Message]
        context = FORKED if place.device == "cpu" else SPAWNED
        self.pipe, theirs = context.Pipe(duplex=False)
        arguments = theirs, place, prepare, options, verdict.known()
        self._process = context.Process(target=_work_for_parent, args=arguments, name=f"worker {number}")
        # The child handles signals after it has imported torch.
        with blocked(*StopSignals.SIGNALS), without_main_module():
            self._process.start()
        theirs.close()  # so that ours reaches its end when the child ends

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended: its id may belong to another by now."""
        if self._process.is_alive() and self._process.pid is not None:
            os.kill(self._process.pid, number)

    def end(self, *, seconds: float) -> None:
        """Wait `seconds` for the end of the process, then kill it."""
        self._process.join(max(seconds, 0.0))
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    @property
    def how_it_died(self) -> str:
        code = self._process.exitcode
        if code is None or code >= 0:
            return f"ended with exit code {code}"
        name = signal.Signals(-code).name
        return f"was killed by {name}" + (" (as happens when memory runs out)" if name == "SIGKILL" else "")


def _work_for_parent(
    pipe: "Connection[Message, Any]",
    place: Place,
    prepare: Callable[[RunOptions], Search],
    options: RunOptions,
    verdicts: Mapping[str, Verdict],
) -> None:
    """Work until a limit is reached, a signal arrives, nothing is left to claim, or the parent is gone.

    Args:
        pipe: receives the messages.
        place: where to work.
        prepare: returns the search in this process.
        options: of the run; `place` gives the device.
        verdicts: of the self-checks of the parent.
    """
    verdict.learn(verdicts)
    with StopSignals() as signals:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, StopSignals.SIGNALS)  # see `WorkerProcess`
        threading.Thread(target=_stop_when_orphaned, daemon=True).start()
        last: Message
        try:
            torch.set_num_threads(place.cores)
            last = _work(pipe, prepare(options.on(place.device)), place.cores, signals)
        except KeyboardInterrupt:
            return  # a second Ctrl-C ends this process at once; the parent got it, too
        except KmnistSearchError as error:
            last = error
        except DATABASE_ERRORS as error:
            last = WorkError(f"the database failed: {reason_of(error)}.")
        except Exception as error:  # the user must see any error, and once
            if place.device != "cpu" and (is_lost(error) or is_out_of_memory(error)):
                last = DeviceLostError(first_line(error))
            else:
                failed = f"{current_process().name} ({place.device}) failed unexpectedly."
                last = WorkerDiedError(f"{failed}\n{traceback.format_exc()}")
        _send(pipe, last)


def _work(pipe: "Connection[Message, Any]", search: Search, cores: int, signals: StopSignals) -> StoppedBy:
    worker, events = search.work(signals, cores=cores)
    for event in events:
        is_news = isinstance(event, TrialStarted | TrialEnded)
        _send(pipe, WorkerEvent(event=event, progress=search.seen_by(worker) if is_news else None))
    return worker.stopped_by


def _send(pipe: "Connection[Message, Any]", message: Message) -> None:
    with contextlib.suppress(BrokenPipeError):  # the parent is gone, and this worker stops soon
        pipe.send(message)


def _stop_when_orphaned() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
