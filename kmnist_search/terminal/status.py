"""The status of a study as `status` prints it, of any height."""

from dataclasses import dataclass
from datetime import datetime

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from kmnist_search.study.status import Status
from kmnist_search.terminal.listings import listings
from kmnist_search.terminal.progress import Row, labelled, progress_rows
from kmnist_search.terminal.sparkline import MAX_CURVE
from kmnist_search.wording import count, difference, percent


@dataclass(frozen=True, kw_only=True)
class StatusView:
    """The full status of a study at `now`, of any height."""

    status: Status
    now: datetime

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        progress = self.status.progress
        finished, total = progress.counts.finished, progress.total
        share = f" ({percent(finished / total, digits=0)})" if total else ""
        yield labelled(
            [
                ("study", Text(progress.name, style="bold")),
                ("finished", Text(f"{finished} of {total}{share}")),
                *progress_rows(progress, total, self.now),
                *halt_rows(self.status),
                *outlook_rows(self.status),
            ]
        )
        # `kmnist-search trials` lists the results.
        shown = listings(self.status, curve_width=MAX_CURVE, ascii_only=options.ascii_only, with_results=False)
        for listing in shown:
            if listing.rows:
                yield Text("")
                yield listing.title
                yield listing


def halt_rows(status: Status) -> list[Row]:
    """Return a row that says that the study is paused or stopped, if it is."""
    if status.halt is None:
        return []
    waits = "workers wait" if status.halt == "paused" else "workers that join it end at once"
    resume = f"kmnist-search resume {status.progress.name}"
    return [("halt", Text(f"{status.halt}: {waits}. To go on: {resume}", style="bold yellow"))]


def outlook_rows(status: Status) -> list[Row]:
    """Return rows for what another hour may gain, and for the noise between equal trainings, where they are known."""
    metric, rows = status.progress.metric, []
    if status.outlook is not None:
        trials = count(status.outlook.trials, "more trial")
        rows.append(("next hour", Text(f"{trials} may gain about {difference(metric, status.outlook.gain)}")))
    if status.noise is not None:
        rows.append(("noise", Text(f"{difference(metric, status.noise)} between trainings of one configuration")))
    return rows
