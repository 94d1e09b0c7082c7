"""What people see of a search in a terminal. Changes nothing."""

from collections import deque
from collections.abc import Iterator, Sequence
from datetime import timedelta

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kmnist_search.events import EpochDone, Event, StoppedBy, TrialEnded, TrialStarted
from kmnist_search.progress import Progress, progress_of
from kmnist_search.search import Search
from kmnist_search.study import SearchStudy
from kmnist_search.summary import shown_params

RECENT_TRIALS = 8
OUTCOME_STYLES = {"complete": "green", "pruned": "yellow", "failed": "red", "handed back": "cyan"}


def announce(console: Console, search: Search) -> None:
    """Say what is about to be worked on, and what the user should know before it is."""
    counts, name = search.study.queue.counts(), search.study.name
    dataset, images = search.file.data.dataset, len(search.data.train_images)
    _line(console, f"study {name} in {search.study.storage.shown_url}: {dataset}, {images:,} training images")
    if search.recovered:
        numbers = ", ".join(str(number) for number in search.recovered)
        _line(console, f"taken up again from a process that died: trial {numbers}")
    if counts.finished >= search.budget:
        _line(console, f"{counts.finished} trials are finished, {search.budget} were asked for: nothing to do.")
        _line(console, f"For ten more: --trials {counts.finished + 10}. The best: kmnist-search best {name}")
    elif search.needs_warning:
        _line(console, "This study is meant for a GPU and there is none here. Measuring what it would take ...")
        _line(
            console,
            f"On this CPU about {duration(search.estimate())} if no trial were pruned. "
            "A study that this machine can do, in place of this one: kmnist-search run kmnist-cpu",
        )


def conclude(console: Console, search: Search, stopped_by: StoppedBy, *, command: str) -> None:
    """Say how the run ended, what is best, and how to go on."""
    progress = progress_of(search.study)
    counts = progress.counts
    state = f"{counts.finished} of {max(search.budget, counts.finished)} trials are finished"
    match stopped_by:
        case "signal":
            _line(console, f"Stopped: {state}, none is left running here. To go on: {command}")
        case "timeout":
            _line(console, f"Time is up: {state}. To go on: {command}")
        case "target":
            _line(console, f"The target is reached: {state}.")
        case "queue":
            _line(console, f"Nothing is left to claim: {state}, {counts.running} still run in other processes.")
        case "budget":
            _line(console, f"Done: {state}.")
    _line(console, f"best: {best_text(progress).plain}")


def follow(console: Console, search: Search, events: Iterator[Event]) -> None:
    """Draw the events and show them, as a live table on a terminal and as lines elsewhere."""
    if not console.is_terminal:
        _follow_plainly(console, search, events)
        return
    view = RunView(search)
    with Live(view, console=console, refresh_per_second=4):
        for event in events:
            view.take(event)


def _follow_plainly(console: Console, search: Search, events: Iterator[Event]) -> None:
    params = ""
    for event in events:
        match event:
            case TrialStarted():
                params = shown_params(event.params)
                if event.epochs_done:
                    _line(console, f"trial {event.number} goes on after epoch {event.epochs_done}")
            case TrialEnded():
                finished = search.study.queue.counts().finished
                _line(console, f"[{finished}/{search.budget}] {_ending(search.study, event)}  {params}")


def _line(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, highlight=False, markup=False)


def _ending(study: SearchStudy, ended: TrialEnded) -> str:
    value = "" if ended.value is None else f"  {study.metric} {ended.value:.4f}"
    epochs = "1 epoch" if ended.epochs == 1 else f"{ended.epochs} epochs"
    reason = f" ({ended.reason})" if ended.outcome in ("failed", "handed back") and ended.reason else ""
    return f"trial {ended.number} {ended.outcome}{reason}{value}  {epochs}  {ended.seconds:.1f} s"


class RunView:
    """The live table of a run, drawn anew from what has happened so far."""

    def __init__(self, search: Search) -> None:
        self.search = search
        self.progress = progress_of(search.study)
        self.recent: deque[TrialEnded] = deque(maxlen=RECENT_TRIALS)
        self.params: dict[int, str] = {}
        self.now = Text("claiming a trial ...")

    def take(self, event: Event) -> None:
        """Take in one event; what other processes did is read from the storage with it."""
        match event:
            case TrialStarted():
                self.params[event.number] = shown_params(event.params)
                self.now = Text(f"trial {event.number}  {self.params[event.number]}")
            case EpochDone():
                value = getattr(event.epoch, self.search.study.metric)
                self.now = Text(
                    f"trial {event.number}  epoch {event.epoch.number}/{self.search.file.train.epochs}  "
                    f"{self.search.study.metric} {value:.4f}  train_loss {event.epoch.train_loss:.4f}\n"
                    f"{self.params[event.number]}"
                )
            case TrialEnded():
                self.recent.append(event)
                self.now = Text("")
        if not isinstance(event, EpochDone):
            self.progress = progress_of(self.search.study)

    def __rich__(self) -> RenderableType:
        counts, budget = self.progress.counts, self.search.budget
        head = Table.grid(padding=(0, 2))
        head.add_row(
            Text(f"{counts.finished}/{budget}", style="bold"),
            ProgressBar(total=budget, completed=counts.finished, width=40),
            Text(_pace(self.progress, budget)),
        )
        rows = Table.grid(padding=(0, 2))
        rows.add_row(Text("trials", style="dim"), counts_text(self.progress))
        rows.add_row(Text("best", style="dim"), best_text(self.progress))
        if self.now:
            rows.add_row(Text("now", style="dim"), self.now)
        return Group(head, rows, self._recent_table())

    def _recent_table(self) -> RenderableType:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=True)
        table.add_column("trial", justify="right", no_wrap=True)
        table.add_column("outcome", no_wrap=True)
        for figure in (self.search.study.metric, "epochs", "seconds"):
            table.add_column(figure, justify="right", no_wrap=True)
        table.add_column("hyperparameters", no_wrap=True, overflow="ellipsis", ratio=1)
        for ended in self.recent:
            table.add_row(
                str(ended.number),
                Text(ended.outcome, style=OUTCOME_STYLES[ended.outcome]),
                "" if ended.value is None else f"{ended.value:.4f}",
                str(ended.epochs),
                f"{ended.seconds:.1f}",
                ended.reason if ended.outcome == "failed" else self.params.get(ended.number, ""),
            )
        return table


def counts_text(progress: Progress) -> Text:
    """Return how many trials are in which state."""
    counts = progress.counts
    text = Text(f"{counts.complete} complete  {counts.pruned} pruned  ")
    text.append(f"{counts.fail} failed", style="red" if counts.fail else "")
    return text.append(f"  {counts.running} running  {counts.waiting} waiting")


def best_text(progress: Progress) -> Text:
    """Return the best complete trial on one line."""
    if progress.best is None:
        return Text("no trial is complete yet")
    text = Text(f"{progress.metric} {progress.best.value:.4f}", style="bold")
    return text.append(f"  trial {progress.best.number}  {shown_params(progress.best.params)}", style="not bold")


def _pace(progress: Progress, budget: int) -> str:
    pace, left = progress.trials_per_hour, progress.time_left(budget)
    if pace is None or left is None:
        return ""
    return f"{pace:.0f} trials/hour, about {duration(left)} left" if left else f"{pace:.0f} trials/hour"


def duration(time: timedelta) -> str:
    """Return a time in its two largest units."""
    seconds = round(time.total_seconds())
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s" if minutes < 10 else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} days {hours % 24} h"


def status_view(progress: Progress) -> RenderableType:
    """Return how far a study has come, as a table."""
    rows = Table.grid(padding=(0, 2))
    rows.add_row(Text("study", style="dim"), Text(progress.name, style="bold"))
    rows.add_row(Text("finished", style="dim"), Text(f"{progress.counts.finished} of {progress.counts.total}"))
    rows.add_row(Text("trials", style="dim"), counts_text(progress))
    rows.add_row(Text("best", style="dim"), best_text(progress))
    if not progress.running:
        rows.add_row(Text("now", style="dim"), Text("nothing runs"))
    elif pace := _pace(progress, progress.counts.total):
        rows.add_row(Text("pace", style="dim"), Text(pace))
    for running in progress.running:
        value = "" if running.value is None else f"  {progress.metric} {running.value:.4f}"
        owner = f"  on {running.owner.host}, process {running.owner.pid}" if running.owner else ""
        if running.owner and running.owner.is_dead():
            owner += ", which has died: the next run takes the trial up"
        rows.add_row(
            Text("running", style="dim"),
            Text(f"trial {running.number}  epoch {running.epoch}/{progress.epochs}{value}{owner}"),
        )
    for failure in progress.failures:
        rows.add_row(Text("failed", style="red"), Text(f"trial {failure.number}  {failure.reason}"))
    return rows


def best_view(study: SearchStudy) -> RenderableType:
    """Return the best complete trial, whole."""
    trial = study.best()
    rows = Table.grid(padding=(0, 2))
    rows.add_row(Text("study", style="dim"), Text(study.name, style="bold"))
    rows.add_row(Text("trial", style="dim"), Text(str(trial.number)))
    rows.add_row(Text(study.metric, style="dim"), Text(f"{trial.value:.4f}", style="bold"))
    for name, value in trial.params.items():
        rows.add_row(Text(name, style="dim"), Text(f"{value:.6g}" if isinstance(value, float) else str(value)))
    for name, value, unit in (
        ("weights", trial.user_attrs["num_parameters"], ""),
        ("FLOPs an image", trial.user_attrs["flops_per_image"], ""),
        ("training time", round(trial.user_attrs["seconds"], 1), " s"),
        ("configuration", trial.user_attrs["config_digest"], ""),
    ):
        rows.add_row(Text(name, style="dim"), Text(f"{value:,}{unit}" if not isinstance(value, str) else value))
    return rows


def studies_view(studies: Sequence[Progress]) -> RenderableType:
    """Return the studies of a storage, one a row."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("study", "finished", "best"):
        table.add_column(column)
    for progress in studies:
        best = "" if progress.best is None else f"{progress.metric} {progress.best.value:.4f}"
        table.add_row(progress.name, f"{progress.counts.finished} of {progress.counts.total}", best)
    return table
