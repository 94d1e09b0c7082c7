"""The commands `enqueue` and `retry`, on both kinds of database: what a study tries next."""

import json
from collections.abc import Callable

import pytest
from click.testing import Result

from kmnist_search.database.storage import open_storage
from kmnist_search.study.opening import find_study
from kmnist_search.study.steering import enqueue

Invoke = Callable[..., Result]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def typed(invoke: Invoke, any_storage_url: str) -> Callable[..., str]:
    """Type a command on one database, and return what it prints."""

    def typed(*arguments: str, exit_code: int = 0) -> str:
        ran = invoke(*arguments, "--storage", any_storage_url)
        assert ran.exit_code == exit_code, ran.output
        return ran.output

    return typed


def trials(typed: Callable[..., str]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(typed("trials", "--json"))
    return found


def test_the_next_trial_takes_what_was_chosen_and_the_budget_stays(typed: Callable[..., str]) -> None:
    typed("submit", "queue", "tiny.toml", "--trials", "3")
    said = typed("enqueue", "tiny", "learning_rate=0.00123")
    assert "one of the next trials takes learning_rate=0.00123\n" in said
    assert "no worker is there. To train what waits: kmnist-search worker tiny --storage" in said
    typed("enqueue", "tiny", "dim=8", "learning_rate=0.00321")
    typed("run", "tiny.toml", "--trials", "3", "--workers", "1")
    found = trials(typed)
    assert len(found) == 3
    assert found[0]["learning_rate"] == 0.00123
    assert (found[1]["learning_rate"], found[1]["dim"]) == (0.00321, 8)
    assert found[2]["learning_rate"] not in (0.00123, 0.00321)


def test_a_study_without_waiting_trials_gets_one_more(typed: Callable[..., str]) -> None:
    typed("run", "tiny.toml", "--trials", "2", "--workers", "1")
    assert "the study has 3 trials now" in typed("enqueue", "tiny", "learning_rate=0.00123")
    assert "3 of 3 trials are finished" in typed("worker", "tiny", "--workers", "1")
    assert trials(typed)[2]["learning_rate"] == 0.00123


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("tiny", "learning_rat=0.01"), "'learning_rat', which is not in [space]"),
        (("tiny", "learning_rate=7"), "learning_rate = 7, which [space] does not contain"),
        (("tiny", "learning_rate"), "write NAME=VALUE, such as learning_rate=0.004"),
        (("tiny", "dim=8", "dim=16"), "dim is given twice"),
        (("tini", "dim=8"), "has no study 'tini'"),
    ],
)
def test_what_cannot_be_tried_is_refused_and_changes_nothing(
    typed: Callable[..., str], arguments: tuple[str, ...], said: str
) -> None:
    typed("submit", "queue", "tiny.toml", "--trials", "2")
    assert said in typed("enqueue", *arguments, exit_code=2)
    typed("run", "tiny.toml", "--trials", "2", "--workers", "1")
    assert len(trials(typed)) == 2


def test_failed_trials_are_tried_again_once_each(
    typed: Callable[..., str], monkeypatch: pytest.MonkeyPatch, any_storage_url: str
) -> None:
    from kmnist_search.engine.training import Training

    advance = Training.advance

    def fails_once(training: Training) -> bool:
        if training.seed == broken:
            raise RuntimeError("a broken machine")
        return advance(training)

    typed("submit", "queue", "tiny.toml", "--trials", "3")
    study = find_study(open_storage(any_storage_url, create=False), "tiny")
    broken = study.training_seed(1)
    monkeypatch.setattr(Training, "advance", fails_once)
    typed("worker", "tiny", "--workers", "1")
    monkeypatch.setattr(Training, "advance", advance)
    assert [trial["state"] == "failed" for trial in trials(typed)] == [False, True, False]

    assert "tried again: 1; the study has 4 trials now" in typed("retry", "tiny", "--failed")
    assert "nothing to retry: study tiny has no failed trial" in typed("retry", "--failed")
    typed("worker", "tiny", "--workers", "1")
    found = trials(typed)
    assert len(found) == 4
    assert found[3]["state"] != "failed"
    assert found[3]["learning_rate"] == found[1]["learning_rate"]


def test_a_request_that_is_repeated_after_a_broken_connection_counts_once(
    typed: Callable[..., str], any_storage_url: str
) -> None:
    typed("submit", "queue", "tiny.toml", "--trials", "1")
    study = find_study(open_storage(any_storage_url, create=False), "tiny")
    chosen = [{"learning_rate": 0.001}, {"learning_rate": 0.002}]
    for _ in range(2):
        with study.storage.writing() as connection:
            study.queue.enqueue(connection, chosen, token="the same")
    assert study.counts().waiting == 2
    assert enqueue(study, [{"learning_rate": 0.003}]) == 1
    assert study.counts().waiting == 3


def test_more_trials_are_added_to_those_that_there_are_and_the_command_to_resume_names_all(
    typed: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("run", "tiny.toml", "--trials", "+2", "--workers", "1", "--timeout", "1h")
    monkeypatch.setattr("sys.argv", ["kmnist-search", *arguments])
    for total in (2, 4):
        assert f"{total} of {total} trials are finished" in typed(*arguments)
    monkeypatch.setattr("sys.argv", ["kmnist-search", "run", "tiny.toml", "--trials=+500"])
    assert "To resume: kmnist-search run tiny.toml --trials=504\n" in typed(*arguments[:3], "+500", "--timeout", "1s")
    assert "is no number of trials. Write 40 (in all) or +20" in typed("run", "--trials", "+0", exit_code=2)
    assert "Write the trials in all" in typed(
        "submit", "kubernetes", "kmnist", "--trials", "+2", "--workers", "1", "--image", "x", exit_code=2
    )
