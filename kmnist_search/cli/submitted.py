"""What the commands `submit` print about a study that was made for workers elsewhere."""

from collections.abc import Callable

from rich.console import Console

from kmnist_search.database.url import has_password, to_type
from kmnist_search.run.search import Search
from kmnist_search.study.status import Status, status_of
from kmnist_search.terminal.progress import best_text
from kmnist_search.watch.watch import watch


def announce(console: Console, made: Search) -> None:
    """Say what was made."""
    study, counts = made.study, made.study.counts()
    _line(
        console,
        f"study {study.name} in {study.storage.shown_url}: {made.data.digest_text}, "
        f"{counts.finished} of {made.goal(counts)} trials are finished, {counts.waiting} wait",
    )
    if made.version_before is not None:
        _line(console, f"so far it was worked on with kmnist-search {made.version_before}; other workers must follow")


def invite(console: Console, made: Search) -> None:
    """Say how to start a worker, if there is something for it to do."""
    study = made.study
    if study.counts().waiting:
        url = study.storage.url
        _line(console, f"A worker: kmnist-search worker {study.name} --storage {to_type(url)}")
        if has_password(url):
            _line(console, "with the password in PGPASSWORD or ~/.pgpass")


def follow(console: Console, made: Search, *, is_hopeless: Callable[[], bool] = lambda: False) -> Status:
    """Show the study until its budget is spent, or until that is hopeless, and say how it ended."""

    def is_over(status: Status) -> bool:
        counts = status.progress.counts
        return counts.finished >= made.goal(counts) or is_hopeless()

    try:
        status = watch(console, made.study, is_over=is_over)
    except KeyboardInterrupt:
        _line(console, f"Its workers go on. To see them again: kmnist-search status {made.study.name} --watch")
        return status_of(made.study)
    counts = status.progress.counts
    if counts.finished >= made.goal(counts):
        _line(console, f"Done: {counts.finished} of {made.goal(counts)} trials are finished.")
        _line(console, f"best: {best_text(status.progress)}")
        _line(console, f"To choose among the best, retrain and test it: kmnist-search best {made.study.name} --retrain")
    return status


def _line(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, highlight=False, markup=False)
