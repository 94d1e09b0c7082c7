"""The view of a run: a live table in a terminal, elsewhere one line for each event."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib.util import find_spec

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from kmnist_search.engine.replica import Epoch
from kmnist_search.run.search import Search
from kmnist_search.study.status import RECENT_TRIALS, FinishedTrial, Progress, Running
from kmnist_search.study.study import SearchStudy
from kmnist_search.terminal.control_keys import no_control_keys_shown
from kmnist_search.terminal.layout import Page
from kmnist_search.terminal.listings import recent_listing, running_listing
from kmnist_search.terminal.picture import CURVE_SHARE, head, sections
from kmnist_search.terminal.printing import LOG, print_line
from kmnist_search.terminal.progress import Row, progress_rows
from kmnist_search.wording import count, duration_text, named_metric, shown_params
from kmnist_search.worker.events import (
    DatabaseAway,
    DatabaseBack,
    EpochDone,
    Event,
    RunWarning,
    Stopping,
    TrialEnded,
    TrialStarted,
    Waiting,
    WithinEpoch,
)

#: The progress of a run is read again after an epoch if it is older.
PROGRESS_AGE = timedelta(seconds=5)


def follow(console: Console, search: Search, progress: Callable[[], Progress], events: Iterator[Event]) -> None:
    """Show the events, as a live table in a terminal or a notebook with ipywidgets, and as lines elsewhere.

    Args:
        console: to show them on.
        search: the search that runs.
        progress: returns the present progress.
        events: of the run.
    """
    if not (console.is_terminal or (console.is_jupyter and find_spec("ipywidgets"))):
        for event in events:
            if line := _log_line(event, search, progress):
                print_line(console, line)
        return
    view = RunView(search, progress)
    with no_control_keys_shown(), Live(view, console=console, refresh_per_second=4):
        for event in events:
            if isinstance(event, RunWarning):  # printed above the table, where it stays
                print_line(console, event.text)
            elif line := _log_line(event, search, progress):
                LOG.info(line)
            view.take(event)
        view.progress, view.waiting = progress(), ""


def _log_line(event: Event, search: Search, progress: Callable[[], Progress]) -> str:
    match event:
        case TrialStarted() if event.epochs_done:
            return f"trial {event.number} resumes after epoch {event.epochs_done}"
        case TrialEnded():
            counts = progress().counts
            ending = _ending(search.study.metric, event)
            return f"[{counts.finished}/{search.goal(counts)}] {ending}  {shown_params(event.params)}"
    return _state_text(event)


def _state_text(event: Event) -> str:
    """Return the text of an event that changes the state of the whole run; else an empty string."""
    match event:
        case DatabaseAway():
            return f"the database is away, trying again: {event.reason}"
        case DatabaseBack():
            return f"the database is back after {duration_text(event.seconds)}"
        case Stopping():
            return f"stopping, waiting at most {duration_text(event.seconds)} for the database"
        case Waiting(is_paused=True):
            return "the study is paused; waiting until it is resumed (kmnist-search resume)"
        case Waiting():
            return "nothing is left to claim; waiting for more"
        case RunWarning():
            return event.text
    return ""


def _ending(metric: str, ended: TrialEnded) -> str:
    needs_reason = ended.outcome in ("failed", "handed back", "lost") or not ended.epochs
    reason = f" ({ended.reason})" if needs_reason and ended.reason else ""
    value = named_metric(metric, ended.value)
    figures = [value] * bool(value) + [count(ended.epochs, "epoch"), duration_text(ended.seconds)]
    return "  ".join([f"trial {ended.number} {ended.outcome}{reason}", *figures])


class RunView:
    """The live picture of a run, drawn from the events so far; it fits the terminal."""

    def __init__(self, search: Search, progress: Callable[[], Progress]) -> None:
        self.search, self._seen = search, progress
        self.progress = progress()
        self.database = self.stopping = self.waiting = ""
        self.recent: deque[FinishedTrial] = deque(maxlen=RECENT_TRIALS)
        self.running: dict[int, _AtWork] = {}

    def take(self, event: Event) -> None:
        """Take in one event; the work of other processes is read from the storage when a trial starts or ends."""
        match event:
            case TrialStarted():
                self.running[event.number] = _AtWork(started=event, at=time.monotonic(), epoch=event.epochs_done)
                self.waiting = ""
            case EpochDone() if event.number in self.running:
                self.running[event.number].add(event.epoch, self.search.study.metric)
            case WithinEpoch() if event.number in self.running:
                self.running[event.number].share = event.share
            case TrialEnded():
                self.recent = deque([each for each in self.recent if each.number != event.number], RECENT_TRIALS)
                self.recent.append(_finished(event))
                self.running.pop(event.number, None)
            case DatabaseAway():
                self.database = _state_text(event)
            case DatabaseBack():
                self.database = ""
            case Stopping():
                self.stopping = _state_text(event)
            case Waiting():
                self.waiting = _state_text(event)
                self.progress = self._seen()
        # The time left changes with each epoch of a trial at work.
        is_old = datetime.now() - self.progress.at > PROGRESS_AGE
        if isinstance(event, TrialStarted | TrialEnded) or (isinstance(event, EpochDone) and is_old):
            self.progress = self._seen()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        page = Page(width=options.max_width, ascii_only=options.ascii_only)
        goal = self.search.goal(self.progress.counts)
        rows = [*progress_rows(self.progress, goal, datetime.now()), *self._state_rows()]
        top = head(self.progress, goal, rows, page)
        shown = [
            running_listing(
                [each.seen(self.search.study, self.progress) for each in list(self.running.values())],
                self.progress,
                curve_width=page.width // CURVE_SHARE,
                ascii_only=page.ascii_only,
                with_worker=set(self.running),
                shares={number: each.share for number, each in list(self.running.items())},
                where=" here",
            ),
            recent_listing(list(self.recent), self.search.study.metric),
        ]
        yield from top
        yield from sections(shown, page, max(options.size.height - len(top) - 1, 0))

    def _state_rows(self) -> list[Row]:
        """Return rows for what is unusual: a database that is away, nothing to do, a stop."""
        rows: list[Row] = []
        if self.database:
            rows.append(("database", Text(self.database, style="red")))
        if not self.running and self.waiting:
            rows.append(("now", Text(self.waiting, style="cyan")))
        elif not self.running and not self.recent and not self.stopping:
            rows.append(("now", Text("claiming a trial ...")))
        if self.stopping:
            rows.append(("now", Text(self.stopping, style="cyan")))
        return rows


@dataclass(kw_only=True)
class _AtWork:
    """A trial that is trained here: since when, by `time.monotonic`, its last epoch, and the metric by epoch."""

    started: TrialStarted
    at: float
    epoch: int
    share: float = 0.0
    reports: dict[int, float] = field(default_factory=dict)

    def add(self, epoch: Epoch, metric: str) -> None:
        """Take in an epoch that is done."""
        self.epoch, self.share = epoch.number, 0.0
        if (value := getattr(epoch, metric)) is not None:
            self.reports[epoch.number] = value

    def seen(self, study: SearchStudy, progress: Progress) -> Running:
        """Return it as a study's status shows it."""
        reports = dict(self.reports)
        value = reports.get(self.epoch)
        then = progress.best.intermediate_values.get(self.epoch) if progress.best else None
        return Running(
            number=self.started.number,
            epoch=self.epoch,
            epochs=study.epochs_of(self.started.params),
            value=value,
            attempts=(),
            seconds=time.monotonic() - self.at,
            params=self.started.params,
            reports=reports,
            is_ahead=value is not None and then is not None and study.is_better(value, then),
        )


def _finished(ended: TrialEnded) -> FinishedTrial:
    return FinishedTrial(
        number=ended.number,
        outcome=ended.outcome,
        value=ended.value,
        epochs=ended.epochs,
        seconds=ended.seconds,
        params=ended.params,
        reason=ended.reason,
    )
