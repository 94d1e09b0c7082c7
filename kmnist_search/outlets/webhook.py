"""Messages about a run to a webhook: a new best, a failed trial, a database that is away, the end.

A message is the JSON object `{"text": ...}`, which Slack, Mattermost and Rocket.Chat take as it is.
"""

import json
import re
import urllib.request
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from kmnist_search.errors import ConfigError, KmnistSearchError
from kmnist_search.run.search import Search
from kmnist_search.study.status import Progress
from kmnist_search.terminal.progress import best_text
from kmnist_search.wording import duration_text
from kmnist_search.worker.events import DatabaseAway, DatabaseBack, Event, RunWarning, TrialEnded

#: How long the webhook may take for a message.
TIMEOUT_SECONDS = 10.0
#: How long the end of the work waits for the messages that are not sent yet.
LAST_SECONDS = 20.0
#: Messages that wait to be sent; further ones are dropped, because the webhook does not keep up.
MOST_WAITING = 20


def check_webhook(url: str) -> None:
    """Raise ConfigError if messages cannot be sent to such a URL."""
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and not re.search(r"\s", url)
    except ValueError:
        is_usable = False
    if not is_usable:
        raise ConfigError("--notify takes the URL of a webhook, such as https://hooks.slack.com/services/...")


class Webhook:
    """Sends messages in a thread, so that no training waits for them. A context manager: leaving it sends the last."""

    def __init__(self, url: str) -> None:
        self._url, self._host = url, urlsplit(url).hostname
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="webhook")
        self._waiting: list[Future[None]] = []
        self._failure = ""
        self._is_told = False

    def __enter__(self) -> "Webhook":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def send(self, text: str) -> None:
        """Send a message, unless many wait already."""
        self._waiting = [each for each in self._waiting if not each.done()]
        if len(self._waiting) < MOST_WAITING:
            self._waiting.append(self._thread.submit(self._post, text))

    def send_last(self, text: str) -> None:
        """Send a message after those that still wait, and wait for its end; a webhook that is too slow misses some."""
        wait([self._thread.submit(self._post, text)], timeout=LAST_SECONDS)

    def new_warning(self) -> Iterator[RunWarning]:
        """Yield a warning about the first message that could not be sent."""
        if self._failure and not self._is_told:
            self._is_told = True
            yield RunWarning(text=f"a message to {self._host} could not be sent, the work continues: {self._failure}")

    def _post(self, text: str) -> None:
        body = json.dumps({"text": text}).encode()
        request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):
                return
        except HTTPError as error:
            self._failure = f"{error.code} {error.reason}"
        except URLError as error:
            self._failure = str(error.reason)
        except (OSError, HTTPException) as error:
            self._failure = str(error) or type(error).__name__


def notified(
    events: Iterator[Event], search: Search, progress: Callable[[], Progress], url: str
) -> Generator[Event, None, None]:
    """Pass events on, and send messages about some of them.

    Args:
        events: of a run.
        search: the search that runs.
        progress: returns its present progress.
        url: of the webhook.
    """
    name = search.study.name
    with Webhook(url) as webhook:
        try:
            for event in events:
                if text := _message(event, progress):
                    webhook.send(f"{name}: {text}")
                yield event
                yield from webhook.new_warning()
        except KmnistSearchError as error:
            webhook.send_last(f"{name}: the work ended with an error: {error}")
            raise
        webhook.send_last(f"{name}: {_end(search, progress())}")
        yield from webhook.new_warning()


def _message(event: Event, progress: Callable[[], Progress]) -> str:
    """Return what to send about an event; empty if nothing is."""
    match event:
        case TrialEnded(outcome="complete"):
            seen = progress()
            is_best = seen.best is not None and seen.best.number == event.number
            return f"new best: {best_text(seen)}" if is_best else ""
        case TrialEnded(outcome="failed"):
            return f"trial {event.number} failed: {event.reason}"
        case DatabaseAway():
            return f"the database is away, trying again: {event.reason}"
        case DatabaseBack():
            return f"the database is back after {duration_text(event.seconds)}"
    return ""


def _end(search: Search, progress: Progress) -> str:
    finished, goal = progress.counts.finished, search.goal(progress.counts)
    done = "done" if finished >= goal else "the work has ended here"
    best = "" if progress.is_plan else f"; best: {best_text(progress)}"
    return f"{done}: {finished} of {goal} trials are finished{best}"
