"""The status of a study: tables of its running trials, workers and failures, as `status` prints it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from kmnist_search.study.status import Running, Status, TrialFailure, WorkerStatus
from kmnist_search.terminal.progress import Row, labelled, progress_rows
from kmnist_search.terminal.sparkline import MAX_CURVE, bounds, fitted, sparkline
from kmnist_search.wording import count, difference, duration_text, metric_text, percent, shown_params

#: The most trials listed for one kind of failure.
NAMED_TRIALS = 4


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A title and a table below it; the columns in `right` are right-aligned."""

    title: Text
    rows: Sequence[Sequence[Text]]
    right: Sequence[int] = ()

    def __rich__(self) -> Table:
        table = Table.grid(padding=(0, 2, 0, 0))
        for number in range(len(self.rows[0])):
            table.add_column(justify="right" if number in self.right else "left")
        for row in self.rows:
            table.add_row(*row)
        return table


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
        for listing in listings(self.status, curve_width=MAX_CURVE, ascii_only=options.ascii_only):
            if listing.rows:
                yield Text("")
                yield listing.title
                yield listing


def halt_rows(status: Status) -> list[Row]:
    """Return a row that says that the study is paused or stopped, if it is."""
    if status.halt is None:
        return []
    waits = "its workers wait" if status.halt == "paused" else "workers that join it end at once"
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


def listings(status: Status, *, curve_width: int, ascii_only: bool) -> list[Listing]:
    """Return the running trials, the workers and the failures."""
    return [_running(status, curve_width, ascii_only=ascii_only), _workers(status), _failures(status)]


def _running(status: Status, curve_width: int, *, ascii_only: bool) -> Listing:
    """Return the running trials; those ahead of the best trial at the same epoch come first."""
    running = sorted(status.running, key=lambda each: not each.is_ahead)
    progress, curves = status.progress, [list(each.reports.values()) for each in running]
    best = list(progress.best.intermediate_values.values()) if progress.best else []
    scale, with_worker = bounds([*curves, best]), {number for worker in status.workers for number in worker.trials}
    rows = []
    for each, curve in zip(running, curves, strict=True):
        thin = fitted(curve, min(curve_width, progress.epochs))
        drawn = sparkline(thin, scale, ascii_only=ascii_only)
        rows.append(_running_row(each, progress.metric, drawn, has_worker=each.number in with_worker))
    title = Text.assemble((f"{count(len(rows), 'trial')} running", "bold"), (f", {progress.metric} by epoch", "dim"))
    if ahead := sum(each.is_ahead for each in running):
        title.append(f", {ahead} ahead of where the best was", style="green")
    return Listing(title=title, rows=rows, right=(1, 2, 3, 5))


def _running_row(running: Running, metric: str, curve: str, *, has_worker: bool) -> list[Text]:
    return [
        Text("trial", style="dim"),
        Text(str(running.number)),
        Text(f"epoch {running.epoch}/{running.epochs}"),
        Text(metric_text(metric, running.value), style="green" if running.is_ahead else ""),
        Text("ahead" if running.is_ahead else "", style="green"),
        Text(duration_text(running.seconds)),
        Text(curve, style="cyan"),
        Text.assemble((_attempt(running, has_worker=has_worker), "yellow"), (shown_params(running.params), "dim")),
    ]


def _attempt(running: Running, *, has_worker: bool) -> str:
    """Return a note on the attempt: its number if not the first, and its process if that is not a known worker."""
    notes = [f"attempt {len(running.attempts)}"] if len(running.attempts) > 1 else []
    if running.attempts and not has_worker:  # its worker was not seen yet, or is gone
        last: Any = running.attempts[-1]
        notes.append(f"on {last['host']}, process {last['pid']}")
    return f"{', '.join(notes)}: " if notes else ""


def _workers(status: Status) -> Listing:
    """Return the workers, those that seem gone first."""
    workers = sorted(status.workers, key=lambda worker: not worker.is_gone)
    gone = sum(worker.is_gone for worker in workers)
    title = Text(count(len(workers) - gone, "worker"), style="bold")
    if gone:
        title.append(f", {gone} gone", style="red")
    return Listing(title=title, rows=[_worker_row(worker) for worker in workers], right=(3, 4))


def _worker_row(worker: WorkerStatus) -> list[Text]:
    seen = f"seen {duration_text(worker.unseen)} ago"
    pace = "" if worker.trials_per_hour is None else f"{worker.trials_per_hour:.0f} trials/hour"
    return [
        Text(worker.host),
        Text(f"gone? {seen}", style="red") if worker.is_gone else Text(seen),
        Text(f"trial {_numbers(worker.trials)}" if worker.trials else "idle"),
        Text(f"{worker.finished} finished"),
        Text(pace),
        Text(worker.device, style="dim"),
        Text(f"process {worker.pid}", style="dim"),
        Text(f"job {worker.job}" if worker.job else "", style="dim"),
    ]


def failure_kinds(failures: Sequence[TrialFailure]) -> list[list[TrialFailure]]:
    """Return the failures grouped by reason, newest first; reasons that differ only in numbers are the same."""
    kinds: dict[tuple[str, str], list[TrialFailure]] = {}
    for failure in sorted(failures, key=lambda failure: -failure.number):
        kinds.setdefault((failure.outcome, re.sub(r"\d[\d.,]*", "0", failure.reason)), []).append(failure)
    return list(kinds.values())


def _failures(status: Status) -> Listing:
    """Return why trials failed, or could not start."""
    rows = [
        [
            Text(f"{len(kind)} {kind[0].outcome}", style="red" if kind[0].outcome == "failed" else "yellow"),
            Text(f"trial {_numbers([each.number for each in kind])}"),
            Text(_on_one_line(kind[0].reason)),
        ]
        for kind in failure_kinds(status.failures)
    ]
    outcomes = [failure.outcome for failure in status.failures]
    failed, without_value = outcomes.count("failed"), outcomes.count("pruned")
    titles = [f"{failed} failed"] * bool(failed) + [f"{without_value} without a value"] * bool(without_value)
    return Listing(title=Text(", ".join(titles), style="bold red"), rows=rows)


def _on_one_line(text: str) -> str:
    """Return a text from others, such as an error message, without control characters."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


def _numbers(numbers: Sequence[int]) -> str:
    more = f" and {len(numbers) - NAMED_TRIALS} more" if len(numbers) > NAMED_TRIALS else ""
    return ", ".join(str(number) for number in numbers[:NAMED_TRIALS]) + more
