"""Show how a study goes on, again and again, while others work on it. Changes nothing but to recover what they lost."""

import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.live import Live
from rich.text import Text

from kmnist_search.database_errors import DATABASE_ERRORS, is_passing, reason_of
from kmnist_search.errors import ReadOnlyError
from kmnist_search.progress import Status, status_of
from kmnist_search.study import SearchStudy
from kmnist_search.views import best_text, counts_text, status_view

#: How often to look; a large study, which takes longer to read, is looked at less often.
LOOK_SECONDS = 2.0
#: The share of the time that may be spent with looking.
LOOKING_SHARE = 0.1


def watch(console: Console, study: SearchStudy, *, is_over: Callable[[Status], bool]) -> Status:
    """Show a study until it is over, as a view that is redrawn on a terminal, and as lines elsewhere.

    A database that is away meanwhile is waited for.

    Args:
        console: to show it on.
        study: the study.
        is_over: whether there is nothing more to wait for.

    Returns:
        how the study stands in the end.
    """
    if console.is_terminal:
        return _watch_live(console, study, is_over)
    return _watch_plainly(console, study, is_over)


def _watch_live(console: Console, study: SearchStudy, is_over: Callable[[Status], bool]) -> Status:
    with Live(console=console, auto_refresh=False) as live:
        for seen in _looks(study):
            live.update(Text(seen, style="red") if isinstance(seen, str) else status_view(seen), refresh=True)
            if isinstance(seen, Status) and is_over(seen):
                return seen
    raise AssertionError("looking does not end by itself")


def _watch_plainly(console: Console, study: SearchStudy, is_over: Callable[[Status], bool]) -> Status:
    told = ""
    for seen in _looks(study):
        line = seen if isinstance(seen, str) else _line(seen)
        if line != told:
            console.print(line, soft_wrap=True, highlight=False, markup=False)
            told = line
        if isinstance(seen, Status) and is_over(seen):
            return seen
    raise AssertionError("looking does not end by itself")


def _looks(study: SearchStudy) -> Iterator[Status | str]:
    """Yield for ever how the study stands, or why that cannot be seen."""
    while True:
        started = time.monotonic()
        yield _look(study)
        took = time.monotonic() - started
        time.sleep(max(LOOK_SECONDS, took / LOOKING_SHARE))


def _look(study: SearchStudy) -> Status | str:
    try:
        _recover(study)
        return status_of(study)
    except DATABASE_ERRORS as error:
        if not is_passing(error):
            raise
        return f"the database is away, trying again: {reason_of(error)}"
    finally:
        study.storage.let_go()


def _recover(study: SearchStudy) -> None:
    """Put back what lost its worker, if this user may: whoever only reads sees the study all the same."""
    try:
        study.recover()
    except ReadOnlyError:
        return


def _line(status: Status) -> str:
    counts, alive = status.progress.counts, sum(not worker.is_gone for worker in status.workers)
    best = f"  best {best_text(status.progress).plain}" if status.progress.best else ""
    workers = "1 worker" if alive == 1 else f"{alive} workers"
    return f"[{counts.finished}/{counts.total}] {counts_text(status.progress).plain}  {workers}{best}"
