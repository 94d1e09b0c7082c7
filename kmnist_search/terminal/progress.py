"""The progress of a study as labelled lines, shared by `run`, `status` and `status --watch`."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kmnist_search.study.status import Progress
from kmnist_search.wording import count, duration_text, named_metric, percent, shown_params

#: A label and its text; an empty label continues the line before.
Row = tuple[str, Text]

#: An expected end later than this is shown with its date.
SAME_DAY = timedelta(hours=20)


def finished_bar(progress: Progress, goal: int) -> Table:
    """Return a full-width bar of how many of `goal` trials are finished."""
    finished = progress.counts.finished
    bar = Table.grid(padding=(0, 1), expand=True)
    bar.add_column(no_wrap=True)
    bar.add_column(ratio=1)
    bar.add_column(no_wrap=True, justify="right")
    drawn = ProgressBar(total=max(goal, 1), completed=finished)
    share = percent(finished / goal if goal else 0.0, digits=0)
    bar.add_row(Text(f" {finished} of {goal} finished", style="bold"), Padding(drawn, 0), Text(f"{share} "))
    return bar


def progress_rows(progress: Progress, goal: int, now: datetime) -> list[Row]:
    """Return rows for the trial states, the time until `goal` are finished, and the best trial if they are compared."""
    best = [] if progress.is_plan else best_rows(progress)
    return [("trials", counts_text(progress)), ("time", _time_text(progress, goal, now)), *best]


def counts_text(progress: Progress) -> Text:
    """Return the number of trials in each state."""
    counts = progress.counts
    text = Text(f"{counts.complete} complete  {counts.pruned} pruned  ")
    text.append(f"{counts.fail} failed", style="red" if counts.fail else "")
    text.append(f"  {counts.running} running  {counts.waiting} waiting")
    if progress.paused:
        text.append(f"  ({progress.paused} paused)", style="dim")
    elif counts.pruned:
        text.append(f"  ({percent(counts.pruned / (counts.complete + counts.pruned), digits=0)} pruned)", style="dim")
    return text


def _time_text(progress: Progress, goal: int, now: datetime) -> Text:
    counts, pace, left = progress.counts, progress.trials_per_hour, progress.time_left(goal)
    if not counts.running:
        return Text("not known while nothing runs" if counts.waiting else "nothing runs, and nothing is left to do")
    if pace is None or left is None:
        return Text("not known yet: too few trials have ended", style="dim")
    end = progress.at + left
    left = max(end - now, timedelta())
    clock = f"{end:%H:%M}" if left < SAME_DAY else f"{end:%a %H:%M}"
    return Text.assemble((f"about {duration_text(left)} left, done at {clock}", "bold"), f"  {pace:.0f} trials/hour")


def best_text(progress: Progress) -> str:
    """Return the best complete trial on one line."""
    if progress.best is None:
        return "no trial is complete yet"
    value = named_metric(progress.metric, progress.best.value)
    return f"{value}  trial {progress.best.number}  {shown_params(progress.best.params)}"


def best_rows(progress: Progress) -> list[Row]:
    """Return rows for the best complete trial: value, cost and hyperparameters."""
    best = progress.best
    if best is None:
        return [("best", Text("no trial is complete yet", style="dim"))]
    text = Text.assemble((named_metric(progress.metric, best.value), "bold green"), f"  trial {best.number}")
    if (size := best.user_attrs.get("num_parameters")) is not None:
        text.append(f"  {count(size, 'parameter')}")
    if (seconds := best.user_attrs.get("seconds")) is not None:
        text.append(f"  {duration_text(seconds)}")
    return [("best", text), ("", Text(shown_params(best.params)))]


def labelled(rows: Sequence[Row]) -> Table:
    """Return rows as a table with dim labels."""
    table = Table.grid(padding=(0, 2))
    for label, text in rows:
        table.add_row(Text(label, style="dim"), text)
    return table
