"""What the commands `submit` print about a study whose workers run elsewhere."""

from collections.abc import Callable

from rich.console import Console

from kmnist_search.database.url import has_password, to_type
from kmnist_search.run.search import Search
from kmnist_search.study.status import Status, status_of
from kmnist_search.terminal.printing import print_line
from kmnist_search.terminal.progress import best_text
from kmnist_search.terminal.run_messages import announce_version
from kmnist_search.watch.watch import watch


def announce(console: Console, made: Search) -> None:
    """Show the study and its trials."""
    study, counts = made.study, made.study.counts()
    print_line(
        console,
        f"study {study.name} in {study.storage.shown_url}: {made.data.digest_text}, "
        f"{counts.finished} of {goal(made)} trials are finished, {counts.waiting} wait",
    )
    if goal(made) > made.goal(counts):
        print_line(console, f"More trials are queued than --trials {made.goal(counts)} asks for; workers do them all")
    announce_version(console, made.version_before)


def goal(made: Search) -> int:
    """Return how many trials the workers will have finished in the end: all that are queued, if more than asked for."""
    counts = made.counts()
    return max(made.goal(counts), counts.total)


def invite(console: Console, made: Search) -> None:
    """Show how to start a worker, if there is something for it to do."""
    study = made.study
    if study.counts().waiting:
        url = study.storage.url
        print_line(console, f"To start a worker: kmnist-search worker {study.name} --storage {to_type(url)}")
        if has_password(url):
            print_line(console, "with the password in PGPASSWORD or ~/.pgpass")


def follow(console: Console, made: Search, *, options: str, is_hopeless: Callable[[], bool] = lambda: False) -> Status:
    """Show the study until its budget is spent, or until that is hopeless, and how it ended.

    A command to type next takes `options`.
    """

    whole = goal(made)

    def is_over(status: Status) -> bool:
        counts = status.progress.counts
        return counts.finished >= whole or is_hopeless()

    try:
        status = watch(console, made.study, is_over=is_over)
    except KeyboardInterrupt:
        print_line(console, f"The workers keep running. To watch again: kmnist-search status {made.study.name} --watch")
        return status_of(made.study)
    counts = status.progress.counts
    if counts.finished >= whole:
        print_line(console, f"Done: {counts.finished} of {whole} trials are finished.")
        print_line(console, f"best: {best_text(status.progress)}")
        print_line(console, made.file.next_step(options))
    return status
