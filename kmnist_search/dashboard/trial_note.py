"""The note of a trial in Markdown, as the page shows it: result, hyperparameters and pictures.

It is made when the page asks and stored nowhere. So trials of earlier versions have it, a read-only dashboard shows it,
and it never names a picture that was deleted. Text that people add to it is stored, and kept.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from optuna.trial import TrialState

from kmnist_search import wording
from kmnist_search.dashboard.kept_text import with_kept_text
from kmnist_search.database.trial_writer import PAUSED_KEY, REASON_KEY
from kmnist_search.optuna_internals.dashboard import NotedTrial

#: What the pictures show, by the first word of their file names, in the order of the note.
PICTURES = {"curves": "learning curves", "confusion": "confusion matrix", "wrong": "most confidently wrong"}
#: Each trial that a worker began to train has it, and no trial of another program.
SIZE_KEY = "num_parameters"


def trial_note(noted: NotedTrial) -> str:
    """Return the note of a trial; of one that no worker began to train, the note as it is stored."""
    if SIZE_KEY not in noted.trial.user_attrs:
        return noted.text
    paragraphs = [", ".join(_facts(noted)), _settings(noted), _pictures(noted), _command(noted)]
    return with_kept_text("\n\n".join(filter(None, paragraphs)), noted.text)


def _facts(noted: NotedTrial) -> Iterator[str]:
    """Yield the result and what it took."""
    trial, known = noted.trial, noted.trial.user_attrs
    if trial.values and noted.metrics:
        yield f"**{wording.named_metric(noted.metrics[0], trial.values[0])}**"
    yield wording.count(len(trial.intermediate_values), "epoch")
    if trial.state == TrialState.PRUNED and PAUSED_KEY in trial.system_attrs:
        yield "paused: it goes on if it comes among the best"
    if isinstance(known.get("seconds"), int | float):
        yield f"{wording.duration_text(known['seconds'])} of training"
    yield wording.count(known[SIZE_KEY], "parameter")
    if "device" in known:
        yield f"on {known['device']}"
    if REASON_KEY in known:
        yield _code(known[REASON_KEY])


def _settings(noted: NotedTrial) -> str:
    return ", ".join(f"{_code(name)} {wording.value(value)}" for name, value in noted.trial.params.items())


def _pictures(noted: NotedTrial) -> str:
    """Return the pictures side by side."""
    order = list(PICTURES)
    names = {each["artifact_id"]: each["filename"] for each in noted.artifacts if each["mimetype"].startswith("image/")}

    def place(artifact_id: str) -> tuple[int, str]:
        kind = _kind(names[artifact_id])
        return order.index(kind) if kind in order else len(order), names[artifact_id]

    return "\n".join(
        f"![{_title(names[artifact_id])}]({noted.artifact_path(artifact_id)})"
        for artifact_id in sorted(names, key=place)
    )


def _kind(filename: str) -> str:
    return filename.partition("-")[0]


def _title(filename: str) -> str:
    """Return what a picture shows, without characters that mean something in Markdown."""
    return PICTURES.get(_kind(filename)) or re.sub(r"[^\w .-]", " ", PurePath(filename).stem)


def _command(noted: NotedTrial) -> str:
    command = f"kmnist-search trials {shlex.quote(noted.study_name)} --number {noted.trial.number}"
    return f"Each epoch and attempt: {_code(command)}, and with {_code('--json')} the whole configuration, too."


def _code(text: Any) -> str:
    """Return a text on one line, as code in Markdown."""
    return f"`{' '.join(str(text).split()).replace('`', chr(39))}`"
