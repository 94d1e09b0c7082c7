"""A study that is watched, as a picture of the size of the terminal. Knows no database and no signals."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.style import Style
from rich.styled import Styled
from rich.table import Table
from rich.text import Text

from kmnist_search.study.status import Progress, Status
from kmnist_search.terminal.sparkline import bounds, fitted, sparkline
from kmnist_search.terminal.tables import counts_text
from kmnist_search.watch.layout import Page, shared_out
from kmnist_search.watch.sections import failures_section, running_section, workers_section
from kmnist_search.wording import count, duration_text, metric_text, named_metric, percent, shown_params

#: Lines that the hyperparameters of the best trial may take, from this height on.
BEST_LINES, TALL = 2, 28
LABEL = 9
#: Without an answer for so long, something is wrong with the database or the way to it.
SILENCE = timedelta(seconds=20)


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """Why the study cannot be seen at the moment, and since when."""

    reason: str
    since: datetime


@dataclass(frozen=True, kw_only=True)
class WatchView:
    """The picture of a study.

    Attributes:
        name: of the study.
        storage: its URL, as it may be shown.
        now: the time.
        status: how it stood when it was last seen; None before the first look.
        seen_at: when that was.
        trouble: None if it can be seen.
    """

    name: str
    storage: str
    now: datetime
    status: Status | None
    seen_at: datetime | None
    trouble: Trouble | None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        page = Page(width=options.max_width, ascii_only=options.ascii_only)
        height = options.height or options.size.height
        head = [page.cut(self._title())]
        if self.trouble:
            head.append(page.cut(_trouble_text(self.trouble, self.now)))
        yield from head
        if self.status is None:
            if not self.trouble:
                yield page.cut(Text(" looking ..."))
            return
        dim = Style(dim=self.trouble is not None)
        for each in _body(self.status, page, height - len(head), self.now):
            yield Styled(each, dim)

    def _title(self) -> Text:
        title = Text.assemble(" study ", (self.name, "bold"), "  ")
        if self.status:
            title.append_text(_state(self.status, is_away=self.trouble is not None))
        if self.seen_at and self.now - self.seen_at > SILENCE and not self.trouble:
            title.append(f"  no answer for {duration_text(self.now - self.seen_at)}", style="red")
        elif self.seen_at:
            title.append(f"  seen at {self.seen_at:%H:%M:%S}", style="dim")
        return title.append(f"  {self.storage}", style="dim")


def _trouble_text(trouble: Trouble, now: datetime) -> Text:
    away = duration_text(now - trouble.since)
    return Text(f" the database is away for {away}, trying again: {trouble.reason}", style="bold red")


def _state(status: Status, *, is_away: bool) -> Text:
    counts = status.progress.counts
    if is_away:
        return Text("as it was", style="red")
    if counts.running:
        return Text("at work", style="bold green")
    if not counts.waiting:
        return Text("done", style="bold green")
    return Text("nothing runs", style="bold yellow")


def _body(status: Status, page: Page, room: int, now: datetime) -> list[Table | Text]:
    """Return lines for all of the room: what must be there, and in between what fits."""
    head = [
        *_progress_lines(status.progress, page, now),
        *_best_lines(status, page, lines=1 if room < TALL else BEST_LINES),
    ]
    foot = [page.cut(line) for line in _foot(status)]
    left = max(room - len(head) - len(foot), 0)
    middle = _sections(status, page, left)
    blank = [Text("")] * (room - len(head) - len(foot) - len(middle))
    return [*head, *middle, *blank, *foot]


def _progress_lines(progress: Progress, page: Page, now: datetime) -> list[Table | Text]:
    counts = progress.counts
    share = counts.finished / counts.total if counts.total else 0.0
    bar = Table.grid(padding=(0, 1), expand=True)
    bar.add_column(no_wrap=True)
    bar.add_column(ratio=1)
    bar.add_column(no_wrap=True, justify="right")
    drawn = ProgressBar(total=max(counts.total, 1), completed=counts.finished)
    finished = Text(f" {counts.finished} of {counts.total} finished", style="bold")
    bar.add_row(finished, Padding(drawn, 0), Text(f"{percent(share, digits=0)} "))
    states = counts_text(progress)
    if ended := counts.complete + counts.pruned:
        states.append(f"  ({percent(counts.pruned / ended, digits=0)} pruned)", style="dim")
    return [bar, page.cut(_labelled("trials", states)), page.cut(_labelled("time", _time_text(progress, now)))]


def _time_text(progress: Progress, now: datetime) -> Text:
    counts, pace, left = progress.counts, progress.trials_per_hour, progress.time_left(progress.counts.total)
    if not counts.running:
        return Text("nothing is left to do" if not counts.waiting else "nothing runs, so it is not known")
    if pace is None or left is None:
        return Text("not known yet: too few trials are over", style="dim")
    at = now + left
    clock = f"{at:%H:%M}" if left < timedelta(hours=20) else f"{at:%a %H:%M}"
    return Text.assemble((f"about {duration_text(left)} left, done at {clock}", "bold"), f"  {pace:.0f} trials/hour")


def _best_lines(status: Status, page: Page, *, lines: int) -> list[Text]:
    progress = status.progress
    if progress.best is None:
        return [page.cut(_labelled("best", Text("no trial is complete yet", style="dim")))]
    best, facts = progress.best, progress.best.user_attrs
    first = Text.assemble((named_metric(progress.metric, best.value), "bold green"), f"  trial {best.number}")
    if (size := facts.get("num_parameters")) is not None:
        first.append(f"  {count(size, 'parameter')}")
    if (seconds := facts.get("seconds")) is not None:
        first.append(f"  {duration_text(seconds)}")
    details = Text(shown_params(best.params)).wrap(Console(width=page.width), max(page.width - LABEL - 1, 1))
    for line in details:
        line.rstrip()
    shown = [*details[: lines - 1], Text(" ").join(details[lines - 1 :])]
    labelled = [_labelled("best", first), *(_labelled("", line) for line in shown if line)]
    return [page.cut(line) for line in [*labelled, _labelled("so far", _bests_text(status, page))]]


def _bests_text(status: Status, page: Page) -> Text:
    """Return the best metric over the trials: where it began, how it went, where it is, since when."""
    bests = status.bests
    scale = bounds([bests])
    if scale is None:
        return Text("")
    since = len(bests) - bests.index(bests[-1]) - 1
    first, last = (metric_text(status.progress.metric, value) for value in (bests[0], bests[-1]))
    before, after = f"{first} ", f" {last}, {_ago(since)}"
    room = page.width - LABEL - 2 - len(before) - len(after)
    low, high = scale
    curve = sparkline(fitted(bests, max(room, 1)), low=low, high=high, ascii_only=page.ascii_only)
    return Text.assemble((before, "dim"), (curve, "green"), after)


def _ago(trials: int) -> str:
    return "just now" if not trials else "1 trial ago" if trials == 1 else f"{trials} trials ago"


def _sections(status: Status, page: Page, room: int) -> list[Text]:
    sections = [running_section(status, page), workers_section(status, page), failures_section(status, page)]
    given = shared_out([section.wanted for section in sections], room)
    return [line for section, lines in zip(sections, given, strict=True) for line in section.shown(page, lines)]


def _foot(status: Status) -> list[Text]:
    """Return what can be done now."""
    name, counts = status.progress.name, status.progress.counts
    leave = Text.assemble((" Ctrl-C", "bold"), " leaves and stops nothing")
    if counts.running:
        leave.append("; where run or worker was started it stops that", style="dim")
    elif counts.waiting:
        leave.append(f". To go on: kmnist-search worker {name}, or run", style="dim")
    else:
        leave.append(f". Next: kmnist-search best {name} --retrain", style="dim")
    more = f" More: kmnist-search best {name}, report {name}"
    return [leave, Text(f"{more}, status {name} --json" if status.failures else more, style="dim")]


def _labelled(label: str, text: Text) -> Text:
    return Text.assemble((f" {label:<{LABEL - 1}}", "dim"), text)
