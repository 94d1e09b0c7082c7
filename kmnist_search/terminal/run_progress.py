"""The view of a run: a live table in a terminal, elsewhere one line for each event."""

from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime
from importlib.util import find_spec

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kmnist_search.engine.replica import Epoch
from kmnist_search.run.search import Search
from kmnist_search.study.status import Progress
from kmnist_search.terminal.control_keys import no_control_keys_shown
from kmnist_search.terminal.printing import LOG, print_line
from kmnist_search.terminal.progress import Row, finished_bar, labelled, progress_rows
from kmnist_search.wording import count, duration_text, metric_text, named_metric, shown_params
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
)

RECENT_TRIALS = 8
OUTCOME_STYLES = {
    "complete": "green",
    "paused": "yellow",
    "pruned": "yellow",
    "failed": "red",
    "handed back": "cyan",
    "lost": "cyan",
}


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
    """The live table of a run, drawn from the events so far."""

    def __init__(self, search: Search, progress: Callable[[], Progress]) -> None:
        self.search, self._seen = search, progress
        self.progress = progress()
        self.database = self.stopping = self.waiting = ""
        self.recent: deque[TrialEnded] = deque(maxlen=RECENT_TRIALS)
        self.started: dict[int, TrialStarted] = {}
        self.epochs: dict[int, Epoch] = {}

    def take(self, event: Event) -> None:
        """Take in one event; the work of other processes is read from the storage when a trial starts or ends."""
        match event:
            case TrialStarted():
                self.started[event.number] = event
                self.waiting = ""
            case EpochDone():
                self.epochs[event.number] = event.epoch
            case TrialEnded():
                self.recent.append(event)
                self.started.pop(event.number, None)
                self.epochs.pop(event.number, None)
            case DatabaseAway():
                self.database = _state_text(event)
            case DatabaseBack():
                self.database = ""
            case Stopping():
                self.stopping = _state_text(event)
            case Waiting():
                self.waiting = _state_text(event)
        # The length of planned trainings is known after the first epoch of one.
        tells_length = isinstance(event, EpochDone) and self.progress.is_plan and self.progress.forecast is None
        if isinstance(event, TrialStarted | TrialEnded) or tells_length:
            self.progress = self._seen()

    def __rich__(self) -> RenderableType:
        goal = self.search.goal(self.progress.counts)
        rows = progress_rows(self.progress, goal, datetime.now())
        if self.database:
            rows.append(("database", Text(self.database, style="red")))
        return Group(finished_bar(self.progress, goal), labelled([*rows, *self._now()]), self._recent_table())

    def _now(self) -> list[Row]:
        """Return a line for each running trial; a single one, or a planned one, also shows its hyperparameters."""
        lines = [Text(self._line(number)) for number in sorted(self.started)]
        if self.progress.is_plan:
            lines = [
                Text.assemble(line, (f"  {shown_params(self.started[number].params)}", "dim"))
                for number, line in zip(sorted(self.started), lines, strict=True)
            ]
        elif len(lines) == 1:
            lines += [Text(shown_params(started.params)) for started in self.started.values()]
        if not lines and self.waiting:
            lines = [Text(self.waiting, style="cyan")]
        if not lines and not self.recent and not self.stopping:
            lines = [Text("claiming a trial ...")]
        if self.stopping:
            lines.append(Text(self.stopping, style="cyan"))
        return [("" if index else "now", line) for index, line in enumerate(lines)]

    def _line(self, number: int) -> str:
        if (epoch := self.epochs.get(number)) is None:
            return f"trial {number}"
        metric = self.search.study.metric
        return (
            f"trial {number}  epoch {epoch.number}/{self.search.study.epochs_of(self.started[number].params)}  "
            f"{named_metric(metric, getattr(epoch, metric))}  train_loss {epoch.train_loss:.4f}"
        )

    def _recent_table(self) -> RenderableType:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=True)
        table.add_column("trial", justify="right", no_wrap=True)
        table.add_column("outcome", no_wrap=True)
        for figure in (self.search.study.metric, "epochs", "time"):
            table.add_column(figure, justify="right", no_wrap=True)
        table.add_column("hyperparameters", no_wrap=True, overflow="ellipsis", ratio=1)
        for ended in self.recent:
            table.add_row(
                str(ended.number),
                Text(ended.outcome, style=OUTCOME_STYLES[ended.outcome]),
                metric_text(self.search.study.metric, ended.value),
                str(ended.epochs),
                duration_text(ended.seconds),
                ended.reason if ended.outcome == "failed" else shown_params(ended.params),
            )
        return table
