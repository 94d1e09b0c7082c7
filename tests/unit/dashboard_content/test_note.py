"""The note of a study as the dashboard shows it, compared whole with recorded texts, and what people write into it."""

from datetime import UTC, datetime
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState

from kmnist_search.dashboard.kept_text import END
from kmnist_search.dashboard_content.note import note
from kmnist_search.dashboard_content.snapshot import Images, Snapshot
from kmnist_search.host.process import Owner
from kmnist_search.queue.queue import Counts
from kmnist_search.queue.workers import RegisteredWorker, WorkerInfo
from kmnist_search.study_file.parser import loads
from tests.support.recorded import assert_recorded
from tests.unit.charts.test_trials import trial

STUDY = """
[study]
name = "shapes"
trials = 20
sampler = { name = "tpe", startup_trials = 6 }
pruner = { name = "successive_halving", min_epochs = 1, reduction_factor = 2 }

[data]
dataset = "kmnist"

[train]
epochs = 4

[space]
learning_rate = { low = 1e-3, high = 1e-2, log = true }
dim = { choices = [48, 64] }
num_blocks = { low = 1, high = 3 }

[fixed]
shift = 1.5
"""
TRIALS = [
    trial(0, 0.9612, reports={1: 0.9, 2: 0.95, 3: 0.96, 4: 0.9612}, params={"learning_rate": 0.004, "dim": 64}),
    trial(1, state=TrialState.PRUNED, reports={1: 0.4}),
    trial(2, 0.9487, reports={1: 0.9, 2: 0.92, 3: 0.93, 4: 0.9487}, params={"learning_rate": 0.002, "dim": 48}),
    trial(3, state=TrialState.FAIL, reason="RuntimeError: a | in a\nreason, and a ` as well"),
    trial(4, state=TrialState.FAIL, reason="out of memory: MemoryError: " + "x" * 300),
    trial(5, state=TrialState.FAIL, reason="RuntimeError: a | in a\nreason, and a ` as well"),
    trial(6, state=TrialState.RUNNING),
]
for each in TRIALS[:3]:
    each.user_attrs = {"seconds": 4.0, "num_parameters": 39_786, "device": "CPU, threads: 1"}


def member(host: str, pid: int, *, unseen: float = 3.0) -> RegisteredWorker:
    return RegisteredWorker(
        worker_id=f"{host} {pid}",
        owner=Owner(host=host, machine=f"of {host}", pid=pid, born=1.0),
        info=WorkerInfo(device="CPU", versions={}, job=None),
        finished=1,
        age=60.0,
        unseen=unseen,
        seconds=120.0,
    )


def snapshot(trials: list[FrozenTrial], **facts: Any) -> Snapshot:
    complete = [each for each in trials if each.state == TrialState.COMPLETE]
    values: dict[str, Any] = {
        "name": "shapes",
        "storage_url": "postgresql://me@server/kmnist",
        "file": loads(STUDY, source="here", name="shapes"),
        "images": Images(train=50_000, val=10_000, digest="dd55e3565ac1"),
        "budget": 20,
        "counts": Counts(complete=2, pruned=1, fail=3, running=1, waiting=13),
        "workers": [],
        "at": datetime(2026, 11, 20, 12, tzinfo=UTC),
    }
    return Snapshot(**{**values, "trials": trials, "ranked": complete, **facts})


def test_a_note_says_what_is_searched_how_far_what_is_best_what_to_type_and_what_failed() -> None:
    workers = [member("node7", 14533), member("node7", 14534), member("node8", 99), member("gone", 1, unseen=999.0)]
    assert_recorded("note-amid.md", note(snapshot(TRIALS, workers=workers)))


@pytest.mark.parametrize(
    ("study", "said"),
    [
        (
            'sampler = { name = "gp", startup_trials = 6 }',
            "A Gaussian process proposes configurations after 6 random trials;",
        ),
        ('sampler = "random"', "Configurations are random;"),
        (
            'second_objective = "parameters"',
            "A Gaussian process proposes configurations after 10 random trials, and seeks the best net of each size;",
        ),
    ],
)
def test_a_note_names_what_proposes(study: str, said: str) -> None:
    file = loads(f"[study]\n{study}", source="here", name="shapes")
    assert said in note(snapshot(TRIALS, file=file))


def test_a_note_of_a_study_that_has_just_begun_has_nothing_to_say_of_trials() -> None:
    counts = Counts(running=1, waiting=19)
    assert_recorded("note-begun.md", note(snapshot([trial(0, state=TrialState.RUNNING)], counts=counts)))


def test_what_people_write_below_the_last_line_stays_and_what_they_change_above_it_does_not() -> None:
    first = note(snapshot(TRIALS))
    assert first.endswith(END)
    theirs = f"{first.replace('Best', 'Worst')}\n\nTry wider nets next."
    again = note(snapshot(TRIALS), theirs)
    assert again == f"{first}\n\nTry wider nets next."
    assert note(snapshot(TRIALS), again) == again


def test_a_note_that_people_wrote_before_there_was_one_of_ours_comes_below_it() -> None:
    assert note(snapshot(TRIALS), "Mine.\n").endswith(f"{END}\n\nMine.\n")


def test_pausing_is_not_called_ending() -> None:
    asha = STUDY.replace('"successive_halving", min_epochs = 1', '"asha"')
    text = note(snapshot(TRIALS, file=loads(asha, source="here", name="shapes")))
    assert "trials pause first after 1 epoch, and about one in 2 goes on" in text


def test_a_loss_is_called_a_loss() -> None:
    file = loads(STUDY.replace('name = "shapes"', 'name = "shapes"\nmetric = "val_loss"'), source="here", name="shapes")
    assert "**a validation loss of 0.9612**" in note(snapshot(TRIALS, file=file))
