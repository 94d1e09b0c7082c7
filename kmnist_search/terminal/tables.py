"""Studies and trials as text and tables for a terminal. Knows nothing of training."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from kmnist_search.study.status import Progress, Running, Status, WorkerSeen
from kmnist_search.terminal.sparkline import bounds, fitted, sparkline
from kmnist_search.wording import duration_text, metric_text, named_metric, shown_params

#: Characters of a curve in a table.
MAX_CURVE = 24


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
    text = Text(named_metric(progress.metric, progress.best.value), style="bold")
    return text.append(f"  trial {progress.best.number}  {shown_params(progress.best.params)}", style="not bold")


def pace_text(progress: Progress, budget: int) -> str:
    """Return how fast a study goes on and how long `budget` trials still take; empty if that is not known."""
    pace, left = progress.trials_per_hour, progress.time_left(budget)
    if pace is None or left is None:
        return ""
    return f"{pace:.0f} trials/hour, about {duration_text(left)} left" if left else f"{pace:.0f} trials/hour"


def status_view(status: Status) -> RenderableType:
    """Return how a study stands, as a table."""
    progress = status.progress
    rows = Table.grid(padding=(0, 2))
    rows.add_row(Text("study", style="dim"), Text(progress.name, style="bold"))
    rows.add_row(Text("finished", style="dim"), Text(f"{progress.counts.finished} of {progress.counts.total}"))
    rows.add_row(Text("trials", style="dim"), counts_text(progress))
    rows.add_row(Text("best", style="dim"), best_text(progress))
    if not status.running:
        rows.add_row(Text("now", style="dim"), Text("nothing runs"))
    elif pace := pace_text(progress, progress.counts.total):
        rows.add_row(Text("pace", style="dim"), Text(pace))
    lines = {running.number: _running_text(running, progress) for running in status.running}
    for worker in status.workers:
        rows.add_row(Text("worker", style="dim"), _worker_text(worker))
        for number in worker.trials:
            rows.add_row("", lines.pop(number))
    for running in status.running:
        if running.number in lines:  # its worker was not seen yet, or is gone
            rows.add_row(Text("running", style="dim"), lines[running.number].append(_owner_text(running)))
    for failure in status.failures:
        rows.add_row(Text(failure.outcome, style="red"), Text(f"trial {failure.number}  {failure.reason}"))
    return rows


def _worker_text(worker: WorkerSeen) -> Text:
    job = f", job {worker.job}" if worker.job else ""
    pace = "" if worker.trials_per_hour is None else f"  {worker.trials_per_hour:.0f} trials/hour"
    text = Text(f"{worker.host}, process {worker.pid}{job}  {worker.device}  {worker.finished} finished{pace}  ")
    if worker.is_gone:
        return text.append(f"gone? last seen {duration_text(worker.unseen)} ago", style="red")
    return text.append(f"seen {duration_text(worker.unseen)} ago")


def _running_text(running: Running, progress: Progress) -> Text:
    parts = [f"trial {running.number}", f"epoch {running.epoch}/{running.epochs}"]
    if running.value is not None:
        parts.append(named_metric(progress.metric, running.value))
    again = f", attempt {len(running.attempts)}" if len(running.attempts) > 1 else ""
    return Text("  ".join(parts) + again)


def _owner_text(running: Running) -> str:
    attempt = running.attempts[-1] if running.attempts else None
    return f"  on {attempt['host']}, process {attempt['pid']}" if attempt else ""


def best_view(summary: Mapping[str, Any]) -> RenderableType:
    """Return what `best_summary` says: the best trials, one a row, and the very best in full."""
    name = Text.assemble(("study  ", "dim"), (summary["study"], "bold"))
    return Group(name, "", _ranking(summary), "", _in_full(summary["metric"], summary["top"][0]))


def _ranking(summary: Mapping[str, Any]) -> RenderableType:
    """Return two lines for each trial, so that the hyperparameters have room in a narrow terminal, too."""
    metric, top = summary["metric"], summary["top"]
    curves = [fitted(list(trial["reports"].values()), MAX_CURVE) for trial in top]
    scale = bounds(curves)
    lines: list[RenderableType] = [
        Text(f"{'rank':>4}  {'trial':>5}  {metric:>12}  {'parameters':>11}  {'time':>11}  curve", style="dim")
    ]
    for trial, curve in zip(top, curves, strict=True):
        value, size = metric_text(metric, trial[metric]), trial["num_parameters"] or 0
        time = duration_text(trial["seconds"])
        figures = f"{trial['rank']:>4}  {trial['number']:>5}  {value:>12}  {size:>11,}  {time:>11}  "
        same = "" if trial["duplicate_of"] is None else f"the same as trial {trial['duplicate_of']}: "
        details = Text.assemble((same, "yellow"), (shown_params(trial["params"]), "dim"))
        lines.append(Text(figures + (sparkline(curve, low=scale[0], high=scale[1]) if scale else "")))
        lines.append(Padding(details, (0, 0, 0, 13)))
    return Group(*lines)


def _in_full(metric: str, trial: Mapping[str, Any]) -> Table:
    rows = Table.grid(padding=(0, 2))
    rows.add_row(Text("trial", style="dim"), Text(str(trial["number"])))
    rows.add_row(Text(metric, style="dim"), Text(metric_text(metric, trial[metric]), style="bold"))
    for name, value in trial["params"].items():
        rows.add_row(Text(name, style="dim"), Text(f"{value:.6g}" if isinstance(value, float) else str(value)))
    for name, value in (
        ("parameters", trial["num_parameters"]),
        ("FLOPs an image", trial["flops_per_image"]),
        ("training time", duration_text(trial["seconds"]) or "not known"),
        ("configuration", trial["config_digest"]),
    ):
        rows.add_row(Text(name, style="dim"), Text(f"{value:,}" if isinstance(value, int) else str(value)))
    return rows


def studies_view(studies: Sequence[Progress]) -> RenderableType:
    """Return the studies of a storage, one a row."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("study", "finished", "best"):
        table.add_column(column)
    for progress in studies:
        best = "" if progress.best is None else named_metric(progress.metric, progress.best.value)
        table.add_row(progress.name, f"{progress.counts.finished} of {progress.counts.total}", best)
    return table
