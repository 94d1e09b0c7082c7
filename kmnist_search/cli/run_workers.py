"""Let one or several processes work on a search, and show it in a terminal. Knows no command line."""

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial

from rich.console import Console

from kmnist_search.host.signals import StopSignals
from kmnist_search.run.placement import Place
from kmnist_search.run.search import Search
from kmnist_search.run.supervisor import Supervisor
from kmnist_search.terminal import run as terminal
from kmnist_search.worker.events import StoppedBy


def work(
    console: Console,
    search: Search,
    prepare_on: Callable[..., Search],
    working: Sequence[Place],
    *,
    signals: StopSignals,
    seconds: float | None,
) -> StoppedBy:
    """Work in each place, in this process if it is one only, until a limit is reached; return which.

    Args:
        console: to show it on.
        search: what is worked on.
        prepare_on: given a `device`, prepares the same in another process; a function that can be pickled.
        working: where.
        signals: ask for a stop.
        seconds: to work from now; None is no limit.

    Raises:
        KmnistSearchError: what ended the work.
    """
    if len(working) > 1:
        with Supervisor(search, prepare_on, working, signals=signals, seconds=seconds) as supervisor:
            terminal.follow(console, search, supervisor.progress, supervisor.work())
        return supervisor.stopped_by
    worker, events = search.work(signals, seconds=seconds, cores=working[0].cores)
    with closing(events):  # whatever ends this, the database thread ends in order
        terminal.follow(console, search, partial(search.seen_by, worker), events)
    return worker.stopped_by
