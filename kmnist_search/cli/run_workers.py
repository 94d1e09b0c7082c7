"""The work of a command in one or several worker processes, shown in a terminal."""

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial

from rich.console import Console

from kmnist_search.host.signals import StopSignals
from kmnist_search.run.options import RunOptions
from kmnist_search.run.placement import Place
from kmnist_search.run.search import Search
from kmnist_search.run.supervisor import Supervisor
from kmnist_search.terminal.run_progress import follow
from kmnist_search.worker.stop import StoppedBy


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
            follow(console, search, supervisor.progress, supervisor.work())
        return supervisor.stopped_by
    worker, events = search.work(signals, cores=places[0].cores)
    with closing(events):  # whatever ends this, the database thread ends in order
        follow(console, search, partial(search.seen_by, worker), events)
    return worker.stopped_by
