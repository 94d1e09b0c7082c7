"""Listings of a study: its running trials, its latest results, its workers and its failures."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from kmnist_search.study.status import FinishedTrial, Progress, Running, Status, TrialFailure, WorkerStatus
from kmnist_search.terminal.sparkline import bounds, fitted, sparkline, stretched
from kmnist_search.wording import count, duration_text, metric_text, percent, shown_params

#: The most trials listed for one kind of failure.
NAMED_TRIALS = 4
OUTCOME_STYLES = {
    "complete": "green",
    "paused": "yellow",
    "pruned": "yellow",
    "failed": "red",
    "handed back": "cyan",
    "lost": "cyan",
}


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


def listings(status: Status, *, curve_width: int, ascii_only: bool, with_results: bool = True) -> list[Listing]:
    """Return the running trials, the latest results if asked for, the workers and the failures."""
    with_worker = {number for worker in status.workers for number in worker.trials}
    running = running_listing(
        status.running, status.progress, curve_width=curve_width, ascii_only=ascii_only, with_worker=with_worker
    )
    results = [recent_listing(status.recent, status.progress.metric)] if with_results else []
    return [running, *results, _workers(status), _failures(status)]


def running_listing(
    running: Sequence[Running],
    progress: Progress,
    *,
    curve_width: int,
    ascii_only: bool,
    with_worker: Collection[int],
    shares: Mapping[int, float] | None = None,
    where: str = "",
) -> Listing:
    """Return the running trials; those ahead of the best trial at the same epoch come first.

    Args:
        running: the trials.
        progress: of their study.
        curve_width: the longest curve.
        ascii_only: whether only ASCII may be shown.
        with_worker: numbers of the trials whose worker is known.
        shares: by number, how much of the epoch under way is done, from 0 to 1, where that is known.
        where: what the title says after "running".
    """
    running = sorted(running, key=lambda each: not each.is_ahead)
    curves = [stretched(list(each.reports.values()), progress.metric) for each in running]
    best = list(progress.best.intermediate_values.values()) if progress.best else []
    scale = bounds([*curves, stretched(best, progress.metric)])
    rows = []
    for each, curve in zip(running, curves, strict=True):
        thin = fitted(curve, min(curve_width, progress.epochs))
        drawn = sparkline(thin, scale, ascii_only=ascii_only)
        share = (shares or {}).get(each.number, 0.0)
        rows.append(_running_row(each, progress.metric, drawn, share, has_worker=each.number in with_worker))
    title = Text.assemble(
        (f"{count(len(rows), 'trial')} running{where}", "bold"), (f", {progress.metric} by epoch", "dim")
    )
    if ahead := sum(each.is_ahead for each in running):
        title.append(f", {ahead} ahead of where the best was", style="green")
    return Listing(title=title, rows=rows, right=(1, 2, 3, 5))


def recent_listing(recent: Sequence[FinishedTrial], metric: str) -> Listing:
    """Return the latest results, the newest first."""
    rows = [
        [
            Text("trial", style="dim"),
            Text(str(each.number)),
            Text(each.outcome, style=OUTCOME_STYLES[each.outcome]),
            Text(metric_text(metric, each.value)),
            Text(count(each.epochs, "epoch")),
            Text(duration_text(each.seconds)),
            Text(_on_one_line(each.reason) if each.outcome == "failed" else shown_params(each.params), style="dim"),
        ]
        for each in reversed(recent)
    ]
    return Listing(title=Text("latest results", style="bold"), rows=rows, right=(1, 3, 4, 5))


def _running_row(running: Running, metric: str, curve: str, share: float, *, has_worker: bool) -> list[Text]:
    within = f" + {percent(share, digits=0)}" if share else ""
    return [
        Text("trial", style="dim"),
        Text(str(running.number)),
        Text(f"epoch {running.epoch}/{running.epochs}{within}"),
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
