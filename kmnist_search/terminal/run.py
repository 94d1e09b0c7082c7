"""What people see of a run in a terminal while it works. Changes nothing."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kmnist_search.engine.replica import Epoch
from kmnist_search.host.environment import package_version
from kmnist_search.host.process import Owner
from kmnist_search.run.placement import Place
from kmnist_search.run.search import Search
from kmnist_search.study.status import Progress
from kmnist_search.study.study import SearchStudy
from kmnist_search.terminal.tables import best_text, counts_text, pace_text
from kmnist_search.wording import count, duration_text, metric_text, named_metric, shown_params
from kmnist_search.worker.events import (
    DatabaseAway,
    DatabaseBack,
    EpochDone,
    Event,
    KernelsMissing,
    NotShown,
    StoppedBy,
    Stopping,
    TrialEnded,
    TrialStarted,
    Waiting,
    WorkerDied,
)

RECENT_TRIALS = 8
WAITING_TEXT = "nothing is left to claim; waiting for more"
OUTCOME_STYLES = {"complete": "green", "pruned": "yellow", "failed": "red", "handed back": "cyan", "lost": "cyan"}


def announce(console: Console, search: Search, places: Sequence[Place]) -> None:
    """Say what is about to be worked on, and what the user should know before it is."""
    counts, name = search.counts(), search.study.name
    datasets, images = search.data.datasets, search.data.train_images
    _line(console, f"study {name} in {search.study.storage.shown_url}: {datasets}, {images:,} training images")
    _tell_recovered(console, search)
    if search.version_before is not None:
        _line(
            console,
            f"so far it was worked on with kmnist-search {search.version_before}; from now on it takes workers of "
            f"{package_version()} only",
        )
    if counts.finished >= search.goal(counts):
        _line(console, f"{counts.finished} trials are finished, {search.goal(counts)} were asked for: nothing to do.")
        _line(console, f"For ten more: --trials {counts.finished + 10}. The best: kmnist-search best {name}")
        return
    _tell_places_or_warn(console, search, places)


def introduce(console: Console, search: Search, places: Sequence[Place]) -> None:
    """Say who joins which study with what."""
    owner, counts, study = Owner.this_process(), search.counts(), search.study
    info = search.worker_info()
    job = f", Slurm job {info.job}" if info.job else ""
    _line(console, f"worker on host {owner.host}, process {owner.pid}{job}: {info.device}")
    _line(console, "  ".join(f"{name} {version}" for name, version in info.versions.items()))
    _line(
        console,
        f"joins study {study.name} in {study.storage.shown_url}: {search.data.digest_text}, "
        f"{counts.finished} of {counts.total} trials are finished",
    )
    _tell_recovered(console, search)
    _tell_places_or_warn(console, search, places)


def _tell_recovered(console: Console, search: Search) -> None:
    if search.recovered:
        numbers = ", ".join(str(number) for number in search.recovered)
        _line(console, f"taken up again from a worker that is gone: trial {numbers}")


def _tell_places_or_warn(console: Console, search: Search, places: Sequence[Place]) -> None:
    if len(places) > 1 or (places[0].device == "cpu" and places[0].cores > 1):
        _line(console, _places_text(places))
    if search.needs_warning:
        _line(console, "This study is meant for a GPU and there is none here. Measuring what it would take ...")
        _line(
            console,
            f"On this CPU about {duration_text(search.estimate() / len(places))} if no trial were pruned. "
            "A study that this machine can do, in place of this one: kmnist-search run kmnist-cpu",
        )


def conclude(console: Console, search: Search, progress: Progress, stopped_by: StoppedBy, *, command: str) -> None:
    """Say how the work ended, what is best, and how to go on."""
    counts = progress.counts
    state = f"{counts.finished} of {max(search.goal(counts), counts.finished)} trials are finished"
    match stopped_by:
        case "signal":
            _line(console, f"Stopped: {state}, none is left running here. To go on: {command}")
        case "timeout":
            _line(console, f"Time is up: {state}. To go on: {command}")
        case "max_trials":
            _line(console, f"As many trials as this worker was to do are done: {state}. To go on: {command}")
        case "target":
            _line(console, f"The target is reached: {state}.")
        case "queue":
            _line(console, f"Nothing is left to claim: {state}, {counts.running} still run in other processes.")
        case "budget":
            _line(console, f"Done: {state}.")
    _line(console, f"best: {best_text(progress).plain}")
    if stopped_by == "budget" and progress.best is None:
        _line(console, f"Why each trial ended as it did: kmnist-search status {progress.name}")
    if stopped_by in ("budget", "target") and progress.best is not None:
        _line(console, search.file.next_step)


def follow(console: Console, search: Search, progress: Callable[[], Progress], events: Iterator[Event]) -> None:
    """Draw the events and show them, as a live table on a terminal and as lines elsewhere.

    Args:
        console: to show them on.
        search: what is worked on.
        progress: returns how far it is.
        events: of the work.
    """
    if not console.is_terminal:
        _follow_plainly(console, search, progress, events)
        return
    view = RunView(search, progress)
    with Live(view, console=console, refresh_per_second=4):
        for event in events:
            match event:  # above the table, to stay
                case WorkerDied():
                    _line(console, _death_text(event))
                case KernelsMissing():
                    _line(console, _kernels_text(event))
                case NotShown():
                    _line(console, _not_shown_text(event))
            view.take(event)


def _follow_plainly(
    console: Console, search: Search, progress: Callable[[], Progress], events: Iterator[Event]
) -> None:
    for event in events:
        match event:
            case TrialStarted() if event.epochs_done:
                _line(console, f"trial {event.number} goes on after epoch {event.epochs_done}")
            case TrialEnded():
                counts, params = progress().counts, shown_params(event.params)
                _line(console, f"[{counts.finished}/{search.goal(counts)}] {_ending(search.study, event)}  {params}")
            case DatabaseAway() | DatabaseBack():
                _line(console, _database_text(event))
            case Stopping():
                _line(console, _stopping_text(event))
            case Waiting():
                _line(console, WAITING_TEXT)
            case WorkerDied():
                _line(console, _death_text(event))
            case KernelsMissing():
                _line(console, _kernels_text(event))
            case NotShown():
                _line(console, _not_shown_text(event))


def _line(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, highlight=False, markup=False)


def _ending(study: SearchStudy, ended: TrialEnded) -> str:
    needs_reason = ended.outcome in ("failed", "handed back", "lost") or not ended.epochs
    reason = f" ({ended.reason})" if needs_reason and ended.reason else ""
    value = named_metric(study.metric, ended.value)
    figures = [value] * bool(value) + [count(ended.epochs, "epoch"), duration_text(ended.seconds)]
    return "  ".join([f"trial {ended.number} {ended.outcome}{reason}", *figures])


def _database_text(event: DatabaseAway | DatabaseBack) -> str:
    if isinstance(event, DatabaseAway):
        return f"the database is away, trying again: {event.reason}"
    return f"the database is back after {duration_text(event.seconds)}"


def _not_shown_text(event: NotShown) -> str:
    return f"the dashboard will lack some of what it shows, the search goes on: {event.reason}"


def _stopping_text(event: Stopping) -> str:
    return f"stopping, waiting at most {duration_text(event.seconds)} for the database"


def _places_text(places: Sequence[Place]) -> str:
    devices = [place.device for place in places]
    if devices[0] != "cpu":
        return f"{len(places)} worker processes, on {', '.join(devices)}"
    cores = places[0].cores
    share = "one core" if cores == 1 else f"up to {cores} cores"
    return f"{len(places)} worker processes, each on {share}" if len(places) > 1 else f"1 worker process, on {share}"


def _kernels_text(event: KernelsMissing) -> str:
    return (
        f"the fused kernels do not run on this GPU ({event.reason}): trials train in plain torch, several times "
        "slower. Triton wants a C compiler and Python's headers, such as gcc and python3-dev"
    )


def _death_text(event: WorkerDied) -> str:
    return f"worker {event.worker} ({event.device}) {event.how}; what it ran goes back to the queue"


class RunView:
    """The live table of a run, drawn anew from what has happened so far."""

    def __init__(self, search: Search, progress: Callable[[], Progress]) -> None:
        self.search, self._seen = search, progress
        self.progress = progress()
        self.database = Text("")
        self.recent: deque[TrialEnded] = deque(maxlen=RECENT_TRIALS)
        self.started: dict[int, TrialStarted] = {}
        self.epochs: dict[int, Epoch] = {}
        self.stopping = Text("")
        self.waiting = Text("")

    def take(self, event: Event) -> None:
        """Take in one event; what other processes did is read from the storage with it."""
        match event:
            case TrialStarted():
                self.started[event.number] = event
                self.waiting = Text("")
            case EpochDone():
                self.epochs[event.number] = event.epoch
            case TrialEnded():
                self.recent.append(event)
                self.started.pop(event.number, None)
                self.epochs.pop(event.number, None)
            case DatabaseAway():
                self.database = Text(_database_text(event), style="red")
            case DatabaseBack():
                self.database = Text("")
            case Stopping():
                self.stopping = Text(_stopping_text(event), style="cyan")
            case Waiting():
                self.waiting = Text(WAITING_TEXT, style="cyan")
        if isinstance(event, TrialStarted | TrialEnded):
            self.progress = self._seen()

    def __rich__(self) -> RenderableType:
        counts = self.progress.counts
        budget = self.search.goal(counts)
        head = Table.grid(padding=(0, 2))
        head.add_row(
            Text(f"{counts.finished}/{budget}", style="bold"),
            ProgressBar(total=budget, completed=counts.finished, width=40),
            Text(pace_text(self.progress, budget)),
        )
        rows = Table.grid(padding=(0, 2))
        rows.add_row(Text("trials", style="dim"), counts_text(self.progress))
        rows.add_row(Text("best", style="dim"), best_text(self.progress))
        if self.database:
            rows.add_row(Text("database", style="dim"), self.database)
        if now := self._now():
            rows.add_row(Text("now", style="dim"), now)
        return Group(head, rows, self._recent_table())

    def _now(self) -> Text:
        """Return a line for each trial at work; one that is alone has room for its hyperparameters."""
        lines = [self._line(number) for number in sorted(self.started)]
        if len(lines) == 1:
            lines += [shown_params(started.params) for started in self.started.values()]
        if not lines and not self.recent and not self.stopping and not self.waiting:
            lines = ["claiming a trial ..."]
        idle = Text("") if lines else self.waiting
        return Text("\n").join(text for text in (Text("\n".join(lines)), idle, self.stopping) if text)

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
