"""The work on a study in one or several worker processes, shown on a console."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial

from rich.console import Console

from kmnist_search.database.errors import when_it_answers
from kmnist_search.host.signals import StopSignals
from kmnist_search.outlets.tensorboard import recorded
from kmnist_search.outlets.webhook import notified
from kmnist_search.run.options import RunOptions
from kmnist_search.run.placement import Place
from kmnist_search.run.search import Search
from kmnist_search.run.submission import prepare
from kmnist_search.run.supervisor import Supervisor
from kmnist_search.study.status import Progress, Status, status_of
from kmnist_search.study.steering import resume
from kmnist_search.study.study import SearchStudy
from kmnist_search.terminal.printing import print_line
from kmnist_search.terminal.run_messages import announce
from kmnist_search.terminal.run_progress import follow
from kmnist_search.worker.events import Event
from kmnist_search.worker.stop import StoppedBy


@dataclass(frozen=True, eq=False, kw_only=True)
class Ended:
    """A search whose work has ended here: its status then, what ended it, and whether a signal asked for that."""

    search: Search
    status: Status
    stopped_by: StoppedBy
    interrupted: bool


def work_on(
    console: Console, search: Search, devices: Sequence[str], *, timeout: float | None, options: str = ""
) -> Ended:
    """Announce a search and work on it with all processes of this machine, until a limit or a signal.

    Args:
        console: to show the work on.
        search: what is worked on.
        devices: where to work.
        timeout: seconds until no more work is done; None means no limit.
        options: what the commands that are shown take.

    Raises:
        KmnistSearchError: what ended the work.
    """
    let_go_on(console, search.study)
    places = search.places(devices)
    announce(console, search, places, options=options)
    search = search.for_at_most(timeout)
    with StopSignals() as signals:
        stopped_by = run_workers(console, search, partial(prepare, search.file), places, signals=signals)
        status = when_it_answers()(status_of, search.study)
    return Ended(search=search, status=status, stopped_by=stopped_by, interrupted=signals.received is not None)


def let_go_on(console: Console, study: SearchStudy) -> None:
    """Let a study that was paused or stopped be worked on again, and show that."""
    if (halt := when_it_answers()(resume, study)) is not None:
        print_line(console, f"study {study.name} was {halt}; it goes on")


def run_workers(
    console: Console,
    search: Search,
    prepare: Callable[[RunOptions], Search],
    places: Sequence[Place],
    *,
    signals: StopSignals,
) -> StoppedBy:
    """Work in each place until a limit is reached; return which. A single place on a CPU is this process.

    A GPU gets a process of its own, which can be replaced when CUDA fails in it.

    Args:
        console: to show the work on.
        search: what is worked on.
        prepare: makes the same search ready in another process; must be picklable.
        places: where to work.
        signals: ask for a stop.

    Raises:
        KmnistSearchError: what ended the work.
    """
    if len(places) > 1 or search.device.type == "cuda":
        with Supervisor(search, prepare, places, signals=signals) as supervisor:
            _follow(console, search, supervisor.progress, supervisor.work())
        return supervisor.stopped_by
    worker, events = search.work(signals, cores=places[0].cores)
    with closing(events):  # whatever ends this, the database thread ends in order
        _follow(console, search, partial(search.seen_by, worker), events)
    return worker.stopped_by


def _follow(console: Console, search: Search, progress: Callable[[], Progress], events: Iterator[Event]) -> None:
    """Show the events of a run, and send them where its options say."""
    options = search.options
    with ExitStack() as stack:
        if options.tensorboard is not None:
            events = stack.enter_context(closing(recorded(events, search, options.tensorboard)))
        if options.webhook is not None:
            events = stack.enter_context(closing(notified(events, search, progress, options.webhook)))
        follow(console, search, progress, events)
