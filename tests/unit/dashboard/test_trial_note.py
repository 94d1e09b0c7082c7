"""The note of a trial as the page shows it."""

from typing import Any

import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from kmnist_search.dashboard.kept_text import END
from kmnist_search.dashboard.trial_note import trial_note
from kmnist_search.database.trial_writer import PAUSED_KEY
from kmnist_search.optuna_internals.dashboard import NotedTrial

TRAINED = {"seconds": 312.4, "num_parameters": 39786, "device": "NVIDIA H200", "seed": 3}
OURS = """\
**val_accuracy 97.92 %**, 2 epochs, 5 min 12 s of training, 39,786 parameters, on NVIDIA H200

`learning_rate` 0.006997, `dim` 64

Each epoch and attempt: `kmnist-search trials kmnist-cpu --number 0`, and with `--json` the whole configuration, too.

---
"""


def noted(
    text: str = "",
    *artifacts: tuple[str, str],
    attributes: dict[str, Any] | None = None,
    state: TrialState = TrialState.COMPLETE,
) -> NotedTrial:
    """A trial, the text of its note, and its artifacts by name and type."""
    trial = create_trial(
        state=state,
        value=0.979167 if state == TrialState.COMPLETE else None,
        params={"learning_rate": 0.006997028081598984, "dim": 64},
        distributions={"learning_rate": FloatDistribution(1e-4, 1e-1), "dim": IntDistribution(1, 128)},
        user_attrs=TRAINED if attributes is None else attributes,
        intermediate_values={1: 0.9, 2: 0.979167},
    )
    trial._trial_id, trial.number = 7, 0
    return NotedTrial(
        study_id=2,
        study_name="kmnist-cpu",
        metrics=["val_accuracy"],
        trial=trial,
        artifacts=[
            {"artifact_id": f"id-{number}", "filename": name, "mimetype": mimetype}
            for number, (name, mimetype) in enumerate(artifacts)
        ],
        text=text,
    )


def test_it_begins_with_the_result_what_it_took_and_the_hyperparameters() -> None:
    assert trial_note(noted()) == OURS + END


def test_pictures_follow_the_settings_curves_first_and_other_files_are_left_out() -> None:
    note = trial_note(
        noted(
            "",
            ("my [own] picture.jpg", "image/jpeg"),
            ("wrong-0.png", "image/png"),
            ("trial-0.toml", "application/toml"),
            ("curves-0.png", "image/png"),
            ("confusion-0.png", "image/png"),
        )
    )
    pictures = [
        "![learning curves](/artifacts/2/7/id-3)",
        "![confusion matrix](/artifacts/2/7/id-4)",
        "![most confidently wrong](/artifacts/2/7/id-1)",
        "![my  own  picture](/artifacts/2/7/id-0)",
    ]
    assert "`dim` 64\n\n" + "\n".join(pictures) + "\n\nEach epoch" in note


def test_what_people_write_is_kept_below() -> None:
    assert trial_note(noted("Mine.\n")) == f"{OURS}{END}\n\nMine.\n"
    edited = f"{trial_note(noted())}\n\nTry wider nets."
    assert trial_note(noted(edited)) == f"{OURS}{END}\n\nTry wider nets."


def test_a_failed_trial_says_why_on_one_line() -> None:
    attributes = {**TRAINED, "reason": "ValueError: bad\nshape `x`"}
    note = trial_note(noted(attributes=attributes, state=TrialState.FAIL))
    assert note.startswith("2 epochs, ")
    assert "\n\n`learning_rate`" in note
    assert "on NVIDIA H200, `ValueError: bad shape 'x'`\n" in note


@pytest.mark.parametrize("text", ["", "Mine."])
def test_a_trial_that_no_worker_began_has_the_note_that_is_stored(text: str) -> None:
    assert trial_note(noted(text, ("curves-0.png", "image/png"), attributes={})) == text


def test_a_trial_that_pauses_says_so_and_a_pruned_one_does_not() -> None:
    paused = noted(state=TrialState.PRUNED)
    assert "paused" not in trial_note(paused)
    paused.trial.system_attrs[PAUSED_KEY] = 2
    assert "2 epochs, paused: it goes on if it comes among the best, 5 min 12 s of training" in trial_note(paused)
