"""Show how a study goes on while others work on it: as a full screen in a terminal, and as lines elsewhere."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime

from rich.console import Console

from kmnist_search.study.poller import Away, Poller
from kmnist_search.study.status import Status
from kmnist_search.study.study import SearchStudy
from kmnist_search.terminal.tables import best_text, counts_text, status_view
from kmnist_search.watch.screen import FullScreen, can_fill, settle_encoding
from kmnist_search.watch.view import Trouble, WatchView

#: How often to draw anew while there is nothing new, for the clock and for what echoes on the screen.
DRAW_SECONDS = 5.0
#: How long, at the end, to wait for a look that goes on.
LAST_LOOK_SECONDS = 1.0


def watch(console: Console, study: SearchStudy, *, is_over: Callable[[Status], bool]) -> Status:
    """Show a study until it is over. A database that is away meanwhile is waited for.

    In a terminal it fills the screen, and leaves it as it was, with the last state below.

    Args:
        console: to show it on.
        study: the study.
        is_over: whether there is nothing more to wait for.

    Returns:
        how the study stands in the end.

    Raises:
        KeyboardInterrupt: at Ctrl-C.
        SystemExit: at SIGTERM, where it fills the screen.
        StudyNotFoundError: the study was deleted.
        SQLAlchemyError: the database failed for good.
    """
    if can_fill(console):
        return _watch_full_screen(console, study, is_over)
    return _watch_plainly(console, study, is_over)


def _watch_full_screen(console: Console, study: SearchStudy, is_over: Callable[[Status], bool]) -> Status:
    settle_encoding(console)
    view = WatchView(
        name=study.name, storage=study.storage.shown_url, now=datetime.now(), status=None, seen_at=None, trouble=None
    )
    try:
        with FullScreen[Status | Away | Exception](console) as screen, _looking(study, screen.tell):
            screen.draw(view)
            for news in screen.news(DRAW_SECONDS):
                if isinstance(news, Exception):
                    raise news
                view = _with(view, news)
                screen.draw(view)
                if isinstance(news, Status) and is_over(news):
                    return news
    finally:
        _leave_behind(console, view)
    raise AssertionError("looking does not end by itself")


def _leave_behind(console: Console, view: WatchView) -> None:
    """Print the last state, which would be lost with the screen."""
    if view.status is not None:
        console.print(status_view(view.status))
    if view.trouble is not None:
        seen = "" if view.seen_at is None else f"That was at {view.seen_at:%H:%M:%S}. "
        console.print(f"{seen}The database is away: {view.trouble.reason}", highlight=False, markup=False)


def _with(view: WatchView, news: Status | Away | None) -> WatchView:
    """Return the picture with what is new in it."""
    now = datetime.now()
    match news:
        case Status():
            return replace(view, now=now, status=news, seen_at=now, trouble=None)
        case Away():
            since = view.trouble.since if view.trouble else now
            return replace(view, now=now, trouble=Trouble(reason=news.reason, since=since))
    return replace(view, now=now)


@contextmanager
def _looking(study: SearchStudy, tell: Callable[[Status | Away | Exception], None]) -> Iterator[None]:
    """While entered, look at the study in a thread: a database that does not answer shall not hold up the terminal."""
    stop = threading.Event()

    def look() -> None:
        try:
            for seen in Poller(study).looks(pause=stop.wait):
                if stop.is_set():
                    return
                tell(seen)
        except Exception as error:
            tell(error)

    thread = threading.Thread(target=look, name="poller", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(LAST_LOOK_SECONDS)


def _watch_plainly(console: Console, study: SearchStudy, is_over: Callable[[Status], bool]) -> Status:
    told = ""
    for seen in Poller(study).looks():
        line = _line(seen)
        if line != told:
            console.print(line, soft_wrap=True, highlight=False, markup=False)
            told = line
        if isinstance(seen, Status) and is_over(seen):
            return seen
    raise AssertionError("looking does not end by itself")


def _line(seen: Status | Away) -> str:
    if isinstance(seen, Away):
        return f"the database is away, trying again: {seen.reason}"
    counts, alive = seen.progress.counts, sum(not worker.is_gone for worker in seen.workers)
    best = f"  best {best_text(seen.progress).plain}" if seen.progress.best else ""
    workers = "1 worker" if alive == 1 else f"{alive} workers"
    return f"[{counts.finished}/{counts.total}] {counts_text(seen.progress).plain}  {workers}{best}"
