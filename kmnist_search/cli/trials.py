"""The command `trials`: list the trials of one study, or of several together, or show one trial whole.

Imports that take time wait inside the functions, so that `--help` answers at once.
"""

import csv
import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from kmnist_search.cli.completion import study_names, trial_columns, trial_numbers
from kmnist_search.cli.options import json_option, print_json, storage_option, stored_study

if TYPE_CHECKING:
    from kmnist_search.study.study import SearchStudy

#: As `trial_rows.STATES`, which is imported later.
STATES = ("complete", "paused", "pruned", "failed", "running")


@click.command(epilog="Example: kmnist-search trials kmnist-cpu --state complete --min 0.97 --sort=-seconds")
@click.argument("studies", metavar="[STUDY]...", nargs=-1, shell_complete=study_names)
@click.option("--state", "states", type=click.Choice(STATES), multiple=True, help="Only trials in this state.")
@click.option("--min", "least", type=float, help="Only trials whose metric is at least this, such as 0.97.")
@click.option("--max", "most", type=float, help="Only trials whose metric is at most this.")
@click.option(
    "--sort",
    default="number",
    show_default=True,
    metavar="COLUMN",
    shell_complete=trial_columns,
    help="Lowest first by this column; --sort=-COLUMN is highest first.",
)
@click.option("--number", type=click.IntRange(min=0), shell_complete=trial_numbers, help="Show this trial whole.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, all columns.")
@json_option
@storage_option
def trials(
    studies: Sequence[str],
    states: Sequence[str],
    least: float | None,
    most: float | None,
    sort: str,
    number: int | None,
    as_csv: bool,
    as_json: bool,
    storage_url: str,
) -> None:
    """List the trials of a study, or show one whole.

    STUDY is its name in the storage; without it, the only one or the one last worked on. The trials of several studies
    are listed together. Waiting trials are not shown. The columns are number, state, the metric under its name, epochs
    (trained), seconds (of training), parameters (of the net), and the hyperparameters.
    """
    if as_csv and as_json:
        raise click.UsageError("--csv and --json are two formats. Leave one of them out.")
    found = [stored_study(storage_url, name) for name in studies or (None,)]
    if number is not None:
        if as_csv or len(found) > 1 or states or least is not None or most is not None:
            raise click.UsageError("--number shows one trial of one study, as text or with --json, whatever it is.")
        _show_one(found[0], number, as_json=as_json)
        return

    from kmnist_search.study.trial_rows import trial_columns, trial_rows

    for limit in (least, most):
        if limit is not None and limit > 1 and found[0].metric.endswith("accuracy"):
            raise click.UsageError(f"{limit:g}: no accuracy is above 1. 98 % is written 0.98")
    rows = [
        {"study": study.name, **row} if len(found) > 1 else row
        for study in found
        for row in trial_rows(study)
        if (not states or row["state"] in states) and _is_within(row[study.metric], least, most)
    ]
    rows = _sorted(rows, sort)
    if as_json:
        print_json([{key: _strict(value) for key, value in row.items()} for row in rows])
    elif as_csv:
        columns = dict.fromkeys(key for row in rows for key in row) or dict.fromkeys(trial_columns(found[0]))
        writer = csv.DictWriter(sys.stdout, fieldnames=list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    else:
        _print(rows, {study.metric for study in found})


def _is_within(value: float | None, least: float | None, most: float | None) -> bool:
    """Return whether a metric is within the limits; one that is not known is within no limit."""
    if least is None and most is None:
        return True
    return value is not None and (least is None or value >= least) and (most is None or value <= most)


def _sorted(rows: Sequence[dict[str, Any]], sort: str) -> list[dict[str, Any]]:
    """Return the rows in the order of a column; those that have no value there come last.

    Raises:
        UsageError: there is no such column.
    """
    if sort == "number":
        return list(rows)  # study after study
    column = sort.removeprefix("-")
    columns = {key: None for row in rows for key in row}
    if rows and column not in columns:
        raise click.UsageError(f"--sort {sort}: there is no column {column!r}. There are: {', '.join(columns)}")
    known = [row for row in rows if row.get(column) is not None]
    unknown = [row for row in rows if row.get(column) is None]
    as_text = any(isinstance(row[column], str) for row in known)
    key = (lambda row: str(row[column])) if as_text else (lambda row: row[column])
    return [*sorted(known, key=key, reverse=sort.startswith("-")), *unknown]


def _strict(value: Any) -> Any:
    """Return a value as JSON has it: without infinity and NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print(rows: Sequence[Mapping[str, Any]], metrics: set[str]) -> None:
    from rich.console import Console

    from kmnist_search.terminal.tables import print_trials

    print_trials(Console(), rows, metrics)


def _show_one(study: "SearchStudy", number: int, *, as_json: bool) -> None:
    """Print one trial whole.

    Raises:
        TrialNotFoundError: the study has no such trial that has been started.
    """
    from rich.console import Console

    from kmnist_search.database.trial_writer import REASON_KEY
    from kmnist_search.errors import TrialNotFoundError
    from kmnist_search.study.study import TRACEBACK_KEY
    from kmnist_search.study.summary import trial_summary
    from kmnist_search.terminal.tables import trial_view

    found = [trial for trial in study.trials() if trial.number == number]
    if not found:
        raise TrialNotFoundError(
            f"study {study.name!r} has no trial {number} that has been started. "
            f"All that have: kmnist-search trials {study.name}"
        )
    study.with_details(found)
    attributes = found[0].user_attrs
    summary = {
        **trial_summary(found[0], study.metric),
        "reason": attributes.get(REASON_KEY),
        "traceback": attributes.get(TRACEBACK_KEY),
    }
    if as_json:
        print_json({**summary, "config": attributes.get("config")})
    else:
        Console().print(trial_view(study.metric, summary))
