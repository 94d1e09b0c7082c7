"""The work of one of several worker processes, and the messages that it sends to its parent."""

import contextlib
import os
import signal
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import current_process, parent_process
from multiprocessing.connection import Connection
from typing import Any

import torch

from kmnist_search.database.errors import DATABASE_ERRORS, reason_of
from kmnist_search.errors import KmnistSearchError, WorkerDiedError, WorkError
from kmnist_search.host.signals import StopSignals
from kmnist_search.run.options import RunOptions
from kmnist_search.run.placement import Place
from kmnist_search.run.search import Search
from kmnist_search.study.status import Progress
from kmnist_search.worker.events import Event, StoppedBy, TrialEnded, TrialStarted


@dataclass(frozen=True, kw_only=True)
class WorkerEvent:
    """An event; at the start and end of a trial also the study's progress as this worker sees it."""

    event: Event
    progress: Progress | None


#: The last message is why the worker stopped, or the error that ended it.
Message = WorkerEvent | StoppedBy | KmnistSearchError


def work_for_parent(
    pipe: "Connection[Message, Any]", place: Place, prepare: Callable[[RunOptions], Search], options: RunOptions
) -> None:
    """Work until a limit is reached, a signal arrives, nothing is left to claim, or the parent is gone.

    Args:
        pipe: receives the messages.
        place: where to work.
        prepare: returns the search in this process.
        options: of the run; `place` gives the device.
    """
    with StopSignals() as signals:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, StopSignals.SIGNALS)  # see `Supervisor`
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
        except Exception:  # the user must see any error, and once
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
