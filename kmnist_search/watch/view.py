"""The full-screen view of a study in `status --watch`."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from rich.console import Console, ConsoleOptions, RenderResult
from rich.style import Style
from rich.styled import Styled
from rich.table import Table
from rich.text import Text

from kmnist_search.study.status import Status
from kmnist_search.terminal.layout import Page
from kmnist_search.terminal.listings import listings
from kmnist_search.terminal.picture import CURVE_SHARE, LABEL, folded, head, sections
from kmnist_search.terminal.progress import progress_rows
from kmnist_search.terminal.sparkline import bounds, fitted, sparkline, stretched
from kmnist_search.terminal.status import halt_rows
from kmnist_search.wording import duration_text, metric_text

#: From this height on, lines for the hyperparameters of the best trial.
BEST_LINES, TALL = 2, 28
#: After this time without an answer, the database or the network has a problem.
SILENCE = timedelta(seconds=20)


@dataclass(frozen=True, kw_only=True)
class Outage:
    """Why the database cannot be used, and since when."""

    reason: str
    since: datetime


@dataclass(frozen=True, kw_only=True)
class WatchView:
    """The view of a study.

    Attributes:
        name: of the study.
        storage: its URL, without the password.
        now: the time.
        status: of the study when last read; None before the first read.
        seen_at: when that was.
        outage: None while the database answers.
    """

    name: str
    storage: str
    now: datetime
    status: Status | None = None
    seen_at: datetime | None = None
    outage: Outage | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        page = Page(width=options.max_width, ascii_only=options.ascii_only)
        height = options.height or options.size.height
        head = [page.cut(self._title())]
        if self.outage:
            head.append(page.cut(_outage_text(self.outage, self.now)))
        yield from head
        if self.status is None:
            if not self.outage:
                yield page.cut(Text(" looking ..."))
            return
        dim = Style(dim=self.outage is not None)
        for each in _body(self.status, page, height - len(head), self.now):
            yield Styled(each, dim)

    def _title(self) -> Text:
        title = Text.assemble(" study ", (self.name, "bold"), "  ")
        if self.status:
            title.append_text(_state(self.status, is_away=self.outage is not None))
        if self.seen_at and self.now - self.seen_at > SILENCE and not self.outage:
            title.append(f"  no answer for {duration_text(self.now - self.seen_at)}", style="red")
        elif self.seen_at:
            title.append(f"  seen at {self.seen_at:%H:%M:%S}", style="dim")
        return title.append(f"  {self.storage}", style="dim")


def _outage_text(outage: Outage, now: datetime) -> Text:
    away = duration_text(now - outage.since)
    return Text(f" the database is away for {away}, trying again: {outage.reason}", style="bold red")


def _state(status: Status, *, is_away: bool) -> Text:
    counts = status.progress.counts
    if is_away:
        return Text("as last seen", style="red")
    if counts.running:
        return Text("running", style="bold green")
    if status.halt is not None:
        return Text(status.halt, style="bold yellow")
    if not counts.waiting:
        return Text("done", style="bold green")
    return Text("nothing runs", style="bold yellow")


def _body(status: Status, page: Page, height: int, now: datetime) -> list[Table | Text]:
    """Return exactly `height` lines: progress first, then listings, then what the user can do."""
    top = _head(status, page, now, best_lines=1 if height < TALL else BEST_LINES)
    foot = [page.cut(line) for line in _foot(status)]
    shown = listings(status, curve_width=page.width // CURVE_SHARE, ascii_only=page.ascii_only)
    middle = sections(shown, page, max(height - len(top) - len(foot), 0))
    blank = [Text("")] * (height - len(top) - len(foot) - len(middle))
    return [*top, *middle, *blank, *foot]


def _head(status: Status, page: Page, now: datetime, *, best_lines: int) -> list[Table | Text]:
    progress = status.progress
    rows = [*halt_rows(status), *progress_rows(progress, progress.total, now)]
    if progress.best is not None:
        *rows, (label, params) = rows
        rows += [(label, line) for line in folded(params, page, best_lines)]
        rows.append(("so far", _bests_text(status, page)))
    return head(progress, progress.total, rows, page)


def _bests_text(status: Status, page: Page) -> Text:
    """Return the best metric over the trials: first value, curve, last value, and since when it is the best."""
    bests = status.bests
    if not bests:
        return Text("")
    first, last = (metric_text(status.progress.metric, value) for value in (bests[0], bests[-1]))
    before, after = f"{first} ", f" {last}, {_ago(len(bests) - bests.index(bests[-1]) - 1)}"
    width = max(page.width - LABEL - 2 - len(before) - len(after), 1)
    drawn = stretched(bests, status.progress.metric)
    curve = sparkline(fitted(drawn, width), bounds([drawn]), ascii_only=page.ascii_only)
    return Text.assemble((before, "dim"), (curve, "green"), after)


def _ago(trials: int) -> str:
    return "just now" if not trials else "1 trial ago" if trials == 1 else f"{trials} trials ago"


def _foot(status: Status) -> list[Text]:
    """Return what the user can do now."""
    name, counts = status.progress.name, status.progress.counts
    leave = Text.assemble((" Ctrl-C", "bold"), " leaves and stops nothing")
    if counts.running:
        leave.append("; where run or worker was started it stops them", style="dim")
    elif status.halt is not None:
        leave.append(f". To go on: kmnist-search resume {name}", style="dim")
    elif counts.waiting:
        leave.append(f". To resume: kmnist-search worker {name}, or run", style="dim")
    else:
        leave.append(f". Next: kmnist-search best {name} --retrain", style="dim")
    more = f" More: kmnist-search best {name}, report {name}"
    return [leave, Text(f"{more}, status {name} --json" if status.failures else more, style="dim")]
