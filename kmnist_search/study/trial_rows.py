"""The trials of a study and their epochs as plain rows, for tables."""

from collections.abc import Mapping
from typing import Any

from optuna.trial import FrozenTrial

from kmnist_search.database.trial_reader import count_reports, read_attribute, read_trials
from kmnist_search.optuna_internals import trial_id_of
from kmnist_search.study.halving import rung_of
from kmnist_search.study.ranking import SIZE_KEY
from kmnist_search.study.study import SearchStudy

#: The states of a trial that has been started.
STATES = ("complete", "paused", "pruned", "failed", "running")
#: The figures of each epoch; a trial's user attribute with those of all epochs is called so, and CURVE_SUFFIX.
CURVES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
CURVE_SUFFIX = "_curve"


def state_of(trial: FrozenTrial) -> str:
    """Return one of STATES. Optuna counts paused trials as pruned."""
    name = trial.state.name.lower()
    return "paused" if rung_of(trial) is not None else {"fail": "failed"}.get(name, name)


def trial_columns(study: SearchStudy) -> list[str]:
    """Return the columns that `trial_rows` has if all trials are of this study's space."""
    return ["number", "state", study.metric, "epochs", "seconds", "parameters", *study.file.searched]


def trial_rows(study: SearchStudy) -> list[dict[str, Any]]:
    """Return a row for each trial that has been started, by number.

    Each has `number`, `state` (one of STATES), the metric under its own name, `epochs` (that were trained), `seconds`
    (of training), `parameters` (of the net), and each hyperparameter under its own name. None stands for what is
    unknown, or is no hyperparameter of that trial.
    """
    study_id = study.queue.study_id
    with study.storage.reading() as connection:
        trials = read_trials(connection, study_id, with_reports=False)
        epochs = count_reports(connection, study_id)
        seconds, sizes = (read_attribute(connection, study_id, key) for key in ("seconds", SIZE_KEY))
    names = dict.fromkeys([*study.file.searched, *(name for trial in trials for name in trial.params)])

    def row(trial: FrozenTrial) -> dict[str, Any]:
        trial_id = trial_id_of(trial)
        return {
            "number": trial.number,
            "state": state_of(trial),
            study.metric: trial.value,
            "epochs": epochs.get(trial_id, 0),
            "seconds": seconds.get(trial_id),
            "parameters": sizes.get(trial_id),
            **{name: trial.params.get(name) for name in names},
        }

    return [row(trial) for trial in trials]


def epoch_rows(study: SearchStudy) -> list[dict[str, Any]]:
    """Return a row for each epoch of each finished trial: `number` of the trial, `epoch`, and the figures after it."""
    trials = [trial for trial in study.trials() if trial.state.is_finished()]
    rows: list[dict[str, Any]] = []
    for start in range(0, len(trials), 1000):  # databases limit the values in one statement
        study.with_details(some := trials[start : start + 1000])
        for trial in some:
            rows += _epochs(trial.number, trial.user_attrs)
    return rows


def _epochs(number: int, attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    curves = {name: attributes.get(f"{name}{CURVE_SUFFIX}", []) for name in CURVES}
    epochs = max(map(len, curves.values()))
    return [
        {
            "number": number,
            "epoch": epoch + 1,
            **{name: curve[epoch] if epoch < len(curve) else None for name, curve in curves.items()},
        }
        for epoch in range(epochs)
    ]
