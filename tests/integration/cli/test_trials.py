"""The command `trials`: lists that are filtered and sorted, one trial whole, and two studies together."""

import csv
import io
import json
from collections.abc import Callable

import pytest
from click.testing import Result

Invoke = Callable[..., Result]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def searched(invoke: Invoke, any_storage_url: str) -> Invoke:
    """The command `trials` on a database with two finished studies."""
    how = ("--set", "study.pruner=asha", "--storage", any_storage_url, "--workers", 1)
    for name, seed in (("tiny", 0), ("other", 1)):
        ran = invoke("run", "tiny.toml", "--name", name, "--seed", seed, *how)
        assert ran.exit_code == 0, ran.output
    return lambda *arguments: invoke("trials", *arguments, "--storage", any_storage_url)


def rows(result: Result) -> list[dict[str, object]]:
    assert result.exit_code == 0, result.output
    found: list[dict[str, object]] = json.loads(result.output)
    return found


def test_trials_are_listed_filtered_and_sorted(searched: Invoke) -> None:
    listed = rows(searched("tiny", "--json"))
    assert [row["number"] for row in listed] == list(range(6))
    assert list(listed[0])[:6] == ["number", "state", "val_accuracy", "epochs", "seconds", "parameters"]
    lines = searched("tiny").output.splitlines()
    assert lines[0].split() == ["number", "state", "val_accuracy", "epochs", "seconds", "parameters", "hyperparameters"]
    assert [line.split()[:2] for line in lines[1:]] == [[str(row["number"]), row["state"]] for row in listed]

    complete = rows(searched("tiny", "--json", "--state", "complete", "--sort=-val_accuracy"))
    values = [row["val_accuracy"] for row in complete]
    assert values == sorted(values, reverse=True)  # type: ignore[type-var]
    assert {row["state"] for row in complete} == {"complete"}
    states = {row["state"] for row in listed}
    assert "paused" in states  # which optuna calls pruned
    assert len(rows(searched("tiny", "--json", "--state", "complete", "--state", "paused"))) == 6
    best = values[0]
    assert [row["val_accuracy"] for row in rows(searched("tiny", "--json", "--min", best))] == [best]
    assert rows(searched("tiny", "--json", "--max", 0.0)) == []
    assert searched("tiny", "--state", "failed").output == "no trial matches\n"
    assert searched("tiny", "--state", "failed", "--csv").output.startswith("number,state,val_accuracy,")


def test_csv_has_every_column_of_both_studies(searched: Invoke) -> None:
    table = list(csv.DictReader(io.StringIO(searched("tiny", "other", "--csv").output)))
    assert sorted(row["study"] for row in table) == ["other"] * 6 + ["tiny"] * 6
    assert {"number", "state", "val_accuracy", "epochs", "seconds", "parameters", "learning_rate", "dim"} < set(
        table[0]
    )


def test_one_trial_is_shown_whole(searched: Invoke) -> None:
    shown = searched("tiny", "--number", 0).output
    assert "val_loss" in shown
    assert "attempts" in shown
    paused = rows(searched("tiny", "--json", "--state", "paused"))[0]["number"]
    assert json.loads(searched("tiny", "--number", paused, "--json").output)["state"] == "paused"
    whole = json.loads(searched("tiny", "--number", 0, "--json").output)
    assert whole["config"]["model"]["dim"] == whole["params"]["dim"]
    assert len(whole["curves"]["val_accuracy"]) == len(whole["reports"]) > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("tiny", "--number", "99"), "study 'tiny' has no trial 99"),
        (("tiny", "--sort", "depth"), "there is no column 'depth'. There are: number, state"),
        (("tiny", "--csv", "--json"), "two formats"),
        (("tiny", "other", "--number", "1"), "one trial of one study"),
        (("tiny", "--number", "1", "--state", "failed"), "one trial of one study"),
        (("tiny", "--min", "97"), "98 % is written 0.98"),
        (("tini",), "has no study 'tini'"),
        (("tiny", "--state", "done"), "'complete', 'paused', 'pruned', 'failed', 'running'"),
    ],
)
def test_what_cannot_be_shown_is_refused(searched: Invoke, arguments: tuple[str, ...], said: str) -> None:
    refused = searched(*arguments)
    assert refused.exit_code == 2
    assert said in refused.output
