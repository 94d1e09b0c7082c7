"""The parts of the picture of a study that is watched: lines of text, of any number. Knows nothing of what fits."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from kmnist_search.study.status import Failure, Running, Status, WorkerSeen
from kmnist_search.terminal.sparkline import bounds, fitted, sparkline
from kmnist_search.watch.layout import Page, Section
from kmnist_search.wording import duration_text, metric_text, shown_params

#: Of the trials of one kind of failure so many are named.
NAMED_TRIALS = 4
#: A curve in a table takes no more than this share of the width.
CURVE_SHARE = 6


def running_section(status: Status, page: Page) -> Section:
    """Return the trials at work: how far each is, its metric, its curve and its hyperparameters.

    Those that are ahead of where the best trial was come first.
    """
    at_work = sorted(status.running, key=lambda running: not running.is_ahead)
    progress, curves = status.progress, [list(running.reports.values()) for running in at_work]
    best = list(progress.best.intermediate_values.values()) if progress.best else []
    scale, width = bounds([*curves, best]), min(page.width // CURVE_SHARE, progress.epochs)
    rows = []
    for running, curve in zip(at_work, curves, strict=True):
        thin = fitted(curve, width)
        drawn = sparkline(thin, low=scale[0], high=scale[1], ascii_only=page.ascii_only) if scale else ""
        rows.append(_running_row(running, progress.metric, drawn))
    title = Text.assemble((f"{_count(len(rows), 'trial')} at work", "bold"), (f", {progress.metric} by epoch", "dim"))
    if ahead := sum(running.is_ahead for running in at_work):
        title.append(f", {ahead} ahead of where the best was", style="green")
    return Section(title=title, lines=page.columns(rows, right=(1, 2, 3, 5)))


def _running_row(running: Running, metric: str, drawn: str) -> list[Text]:
    return [
        Text("trial", style="dim"),
        Text(str(running.number)),
        Text(f"epoch {running.epoch}/{running.epochs}"),
        Text(metric_text(metric, running.value), style="green" if running.is_ahead else ""),
        Text("ahead" if running.is_ahead else "", style="green"),
        Text(duration_text(running.seconds)),
        Text(drawn, style="cyan"),
        Text.assemble((_again(running), "yellow"), (shown_params(running.params), "dim")),
    ]


def _again(running: Running) -> str:
    return f"attempt {len(running.attempts)}: " if len(running.attempts) > 1 else ""


def workers_section(status: Status, page: Page) -> Section:
    """Return the workers, first those that seem to be gone."""
    workers = sorted(status.workers, key=lambda worker: not worker.is_gone)
    gone = sum(worker.is_gone for worker in workers)
    title = Text(_count(len(workers) - gone, "worker"), style="bold")
    if gone:
        title.append(f", {gone} gone", style="red")
    return Section(title=title, lines=page.columns([_worker_row(worker) for worker in workers], right=(3, 4)))


def _worker_row(worker: WorkerSeen) -> list[Text]:
    return [
        Text(worker.host),
        _seen(worker),
        Text(f"trial {_numbers(worker.trials)}" if worker.trials else "idle"),
        Text(f"{worker.finished} finished"),
        Text("" if worker.trials_per_hour is None else f"{worker.trials_per_hour:.0f} an hour"),
        Text(worker.device, style="dim"),
        Text(f"process {worker.pid}", style="dim"),
        Text(f"job {worker.job}" if worker.job else "", style="dim"),
    ]


def _seen(worker: WorkerSeen) -> Text:
    ago = f"{duration_text(worker.unseen)} ago"
    return Text(f"gone? seen {ago}", style="red") if worker.is_gone else Text(f"seen {ago}")


@dataclass(frozen=True, kw_only=True)
class FailureKind:
    """Failures for the same reason, the newest first; `reason` is that of the newest."""

    outcome: str
    reason: str
    numbers: Sequence[int]


def failure_kinds(failures: Sequence[Failure]) -> list[FailureKind]:
    """Return the failures by their reason, whatever figures it has, that of the newest first."""
    kinds: dict[tuple[str, str], list[Failure]] = {}
    for failure in sorted(failures, key=lambda failure: -failure.number):
        kinds.setdefault((failure.outcome, re.sub(r"\d[\d.,]*", "0", failure.reason)), []).append(failure)
    return [
        FailureKind(outcome=same[0].outcome, reason=same[0].reason, numbers=[each.number for each in same])
        for same in kinds.values()
    ]


def failures_section(status: Status, page: Page) -> Section:
    """Return why trials broke, or could not begin."""
    rows = [
        [
            Text(f"{len(kind.numbers)} {kind.outcome}", style="red" if kind.outcome == "failed" else "yellow"),
            Text(f"trial {_numbers(kind.numbers)}"),
            Text(_on_one_line(kind.reason)),
        ]
        for kind in failure_kinds(status.failures)
    ]
    outcomes = [failure.outcome for failure in status.failures]
    broken, infeasible = outcomes.count("failed"), outcomes.count("pruned")
    told = [f"{broken} failed"] * bool(broken) + [f"{infeasible} without a value"] * bool(infeasible)
    return Section(title=Text(", ".join(told), style="bold red"), lines=page.columns(rows))


def _on_one_line(text: str) -> str:
    """Return a text that others wrote, such as an error's, so that it does nothing to the terminal."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


def _numbers(numbers: Sequence[int]) -> str:
    more = f" and {len(numbers) - NAMED_TRIALS} more" if len(numbers) > NAMED_TRIALS else ""
    return ", ".join(str(number) for number in numbers[:NAMED_TRIALS]) + more


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
