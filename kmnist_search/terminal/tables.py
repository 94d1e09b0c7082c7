"""The best trials of a study, its ledger, and the studies of a storage, as tables."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from kmnist_search.evaluation.metrics import Opening, Recipe
from kmnist_search.study.status import Progress
from kmnist_search.terminal.progress import labelled
from kmnist_search.terminal.sparkline import MAX_CURVE, bounds, fitted, sparkline, stretched
from kmnist_search.wording import count, duration_text, metric_text, moment, named_metric, percent, shown_params, value


def best_view(summary: Mapping[str, Any]) -> RenderableType:
    """Return the result of `best_summary` as a table of the best trials, with the best one in full."""
    name = Text.assemble(("study  ", "dim"), (summary["study"], "bold"))
    return Group(name, "", _ranking(summary), "", _in_full(summary["metric"], summary["top"][0]))


def _ranking(summary: Mapping[str, Any]) -> RenderableType:
    """Return two lines for each trial, so that hyperparameters fit into a narrow terminal."""
    metric, top = summary["metric"], summary["top"]
    curves = [fitted(stretched(list(trial["reports"].values()), metric), MAX_CURVE) for trial in top]
    scale = bounds(curves)
    lines: list[RenderableType] = [
        Text(f"{'rank':>4}  {'trial':>5}  {metric:>12}  {'parameters':>11}  {'time':>10}  curve", style="dim")
    ]
    for trial, curve in zip(top, curves, strict=True):
        result, size = metric_text(metric, trial[metric]), trial["num_parameters"] or 0
        time = duration_text(trial["seconds"])
        figures = f"{trial['rank']:>4}  {trial['number']:>5}  {result:>12}  {size:>11,}  {time:>10}  "
        same = "" if trial["duplicate_of"] is None else f"the same as trial {trial['duplicate_of']}: "
        details = Text.assemble((same, "yellow"), (shown_params(trial["params"]), "dim"))
        lines.append(Text(figures + sparkline(curve, scale)))
        lines.append(Padding(details, (0, 0, 0, 13)))
    return Group(*lines)


def _in_full(metric: str, trial: Mapping[str, Any]) -> Table:
    cost = {
        "parameters": trial["num_parameters"],
        "FLOPs an image": trial["flops_per_image"],
        "training time": duration_text(trial["seconds"]) or None,
        "configuration": trial["config_digest"],
    }
    params = {name: value(each, digits=6) for name, each in trial["params"].items()}
    return labelled(
        [
            ("trial", Text(str(trial["number"]))),
            (metric, Text(metric_text(metric, trial[metric]), style="bold")),
            *((name, Text(text)) for name, text in params.items()),
            *(
                (name, Text(f"{each:,}" if isinstance(each, int) else str(each)))
                for name, each in cost.items()
                if each is not None
            ),
        ]
    )


def trial_view(metric: str, summary: Mapping[str, Any]) -> RenderableType:
    """Return the result of `trial_summary` with its state, its attempts and its figures after each epoch."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    curves = {name: curve for name, curve in sorted(summary["curves"].items()) if curve}
    table.add_column("epoch", justify="right")
    for name in curves:
        table.add_column(name, justify="right")
    for epoch in range(max(map(len, curves.values()), default=0)):
        cells = (metric_text(name, curve[epoch]) if epoch < len(curve) else "" for name, curve in curves.items())
        table.add_row(str(epoch + 1), *cells)
    attempts = [f"{each['host']}, process {each['pid']}: {each['how'] or 'running'}" for each in summary["attempts"]]
    lines = [("" if index else "attempts", Text(line)) for index, line in enumerate(attempts)]
    state = [("state", Text(summary["state"])), ("reason", Text(summary["reason"] or "")), *lines]
    traceback: list[RenderableType] = [Text(summary["traceback"], style="dim"), ""] if summary["traceback"] else []
    shown: list[RenderableType] = [labelled([(name, text) for name, text in state if text.plain]), "", *traceback]
    return Group(_in_full(metric, summary), "", *shown, table)


def print_trials(console: Console, rows: Sequence[Mapping[str, Any]], metrics: Collection[str]) -> None:
    """Print the rows of `trial_rows`, one line each; a terminal cuts what is too long for it.

    Args:
        console: to print on.
        rows: what to print; those of several studies have the key "study".
        metrics: the names of their metrics.
    """
    figures = ("study", "number", "state", *sorted(metrics), "epochs", "seconds", "parameters")
    columns = [name for name in figures if any(name in row for row in rows)]
    cells = [[_cell(name, row.get(name)) for name in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    lines = [(columns, "hyperparameters", "dim")]
    for row, texts in zip(rows, cells, strict=True):
        params = {name: value for name, value in row.items() if name not in figures and value is not None}
        lines.append((texts, shown_params(params), ""))
    if not rows:
        console.print("no trial matches", highlight=False)
        return
    for texts, params_text, style in lines:
        padded = "  ".join(text.rjust(width) for text, width in zip(texts, widths, strict=True))
        line = Text(f"{padded}  {params_text}", style=style)
        if console.is_terminal:
            console.print(line, no_wrap=True, overflow="ellipsis")
        else:
            console.print(line, soft_wrap=True)


def _cell(name: str, found: Any) -> str:
    if found is None:
        return ""
    if name == "seconds":
        return duration_text(found)
    if name == "parameters":
        return f"{found:,}"
    return metric_text(name, found) if isinstance(found, float) else str(found)


def studies_view(studies: Sequence[Progress]) -> RenderableType:
    """Return the studies of a storage, one per row."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("study", "finished", "best"):
        table.add_column(column)
    for progress in studies:
        best = "" if progress.best is None else named_metric(progress.metric, progress.best.value)
        table.add_row(progress.name, f"{progress.counts.finished} of {progress.total}", best)
    return table


def ledger_view(study: str, recipes: Sequence[Recipe], openings: Sequence[Opening]) -> RenderableType:
    """Return the frozen recipes of a study, each with the looks of its models at the test set."""
    summary = f"{count(len(openings), 'look')} at the test set by {count(len(recipes), 'frozen recipe')}"
    lines: list[RenderableType] = [Text.assemble(("study  ", "dim"), (study, "bold"), f"  {summary}")]
    for recipe in recipes:
        what = f"recipe {recipe.digest}  trial {recipe.trial}, {count(recipe.epochs, 'epoch')}"
        table = Table(box=None, padding=(0, 2, 0, 2), header_style="dim")
        for title in ("looked at", "seed", "weights", "accuracy"):
            table.add_column(title, no_wrap=True)
        for each in openings:
            if each.recipe_digest == recipe.digest:
                accuracy = percent(each.accuracy) or "interrupted"
                table.add_row(moment(each.opened_at), str(each.seed), each.weights_sha256[:12], accuracy)
        lines += ["", Text(f"{what}, frozen at {moment(recipe.frozen_at)}"), table]
    return Group(*lines)
