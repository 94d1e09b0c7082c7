"""Follows a study that others work on: on the full screen of a terminal, elsewhere as lines."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime

from rich.console import Console

from kmnist_search.study.poller import Away, Poller
from kmnist_search.study.status import Status
from kmnist_search.study.study import SearchStudy
from kmnist_search.terminal.printing import print_line
from kmnist_search.terminal.progress import best_text, counts_text
from kmnist_search.terminal.status import StatusView
from kmnist_search.watch.screen import FullScreen, can_fill, settle_encoding
from kmnist_search.watch.view import Outage, WatchView
from kmnist_search.wording import count

#: The longest wait for the database at the end.
LAST_LOOK_SECONDS = 1.0


def watch(console: Console, study: SearchStudy, *, is_over: Callable[[Status], bool]) -> Status:
    """Show a study until it is over. If the database is away, wait for it.

    In a terminal, use the full screen; at the end, restore it and print the last status.

    Args:
        console: to show it on.
        study: the study.
        is_over: whether there is nothing more to wait for.

    Returns:
        the last status of the study.

    Raises:
        KeyboardInterrupt: at Ctrl-C.
        SystemExit: at SIGTERM, on the full screen.
        StudyNotFoundError: the study was deleted.
        SQLAlchemyError: the database failed for good.
    """
    if can_fill(console):
        return _watch_full_screen(console, study, is_over)
    return _watch_plainly(console, study, is_over)


def _watch_full_screen(console: Console, study: SearchStudy, is_over: Callable[[Status], bool]) -> Status:
    settle_encoding(console)
    view = WatchView(name=study.name, storage=study.storage.shown_url, now=datetime.now())
    try:
        screen = FullScreen[Status | Away | Exception](console, lambda: replace(view, now=datetime.now()))
        with screen, _polling(study, screen.put):
            for seen in screen.items():
                if isinstance(seen, Exception):
                    raise seen
                view = _with(view, seen)
                if isinstance(seen, Status) and is_over(seen):
                    return seen
    finally:
        _leave_behind(console, view)
    raise AssertionError("polling does not end by itself")


def _leave_behind(console: Console, view: WatchView) -> None:
    """Print the last status, which disappears with the screen otherwise."""
    if view.status is not None:
        console.print(StatusView(status=view.status, now=datetime.now()))
    if view.outage is not None:
        seen = "" if view.seen_at is None else f"That was at {view.seen_at:%H:%M:%S}. "
        print_line(console, f"{seen}The database is away: {view.outage.reason}")


def _with(view: WatchView, seen: Status | Away) -> WatchView:
    """Return the view with the last status, or with the outage."""
    now = datetime.now()
    if isinstance(seen, Status):
        return replace(view, status=seen, seen_at=now, outage=None)
    return replace(view, outage=Outage(reason=seen.reason, since=view.outage.since if view.outage else now))


@contextmanager
def _polling(study: SearchStudy, put: Callable[[Status | Away | Exception], None]) -> Iterator[None]:
    """While entered, read the study in a thread, so that a hanging database never blocks the terminal."""
    stop = threading.Event()

    def poll() -> None:
        try:
            for seen in Poller(study).statuses(pause=stop.wait):
                if stop.is_set():
                    return
                put(seen)
        except Exception as error:
            put(error)

    thread = threading.Thread(target=poll, name="poller", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(LAST_LOOK_SECONDS)


def _watch_plainly(console: Console, study: SearchStudy, is_over: Callable[[Status], bool]) -> Status:
    shown = ""
    for seen in Poller(study).statuses():
        line = _line(seen)
        if line != shown:
            print_line(console, line)
            shown = line
        if isinstance(seen, Status) and is_over(seen):
            return seen
    raise AssertionError("polling does not end by itself")


def _line(seen: Status | Away) -> str:
    if isinstance(seen, Away):
        return f"the database is away, trying again: {seen.reason}"
    counts, alive = seen.progress.counts, sum(not worker.is_gone for worker in seen.workers)
    best = f"  best {best_text(seen.progress)}" if seen.progress.best else ""
    return (
        f"[{counts.finished}/{seen.progress.total}] {counts_text(seen.progress).plain}  {count(alive, 'worker')}{best}"
    )
