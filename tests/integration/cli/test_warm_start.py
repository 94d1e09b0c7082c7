"""`run --from`: a new study begins with the best of another one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from kmnist_search.database.storage import open_storage
from kmnist_search.optuna_internals import FIXED_PARAMS_KEY
from kmnist_search.study.opening import find_study
from tests.support.postgres import PostgresServer

Invoke = Callable[..., Result]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite":
        return "sqlite:///kmnist-search.db"
    postgres: PostgresServer = request.getfixturevalue("postgres")
    return postgres.new_database()


def _enqueued(url: str, name: str) -> list[dict[str, Any]]:
    storage = open_storage(url, create=False)
    trials = find_study(storage, name).optuna.get_trials(deepcopy=False)
    storage.disconnect()
    return [trial.system_attrs[FIXED_PARAMS_KEY] for trial in trials if trial.system_attrs.get(FIXED_PARAMS_KEY)]


def test_the_first_trials_are_the_best_of_the_other_study_as_far_as_they_fit(
    invoke: Invoke, tiny_study: Path, url: str
) -> None:
    assert invoke("run", "tiny.toml", "--set", "study.pruner=none", "--storage", url).exit_code == 0
    best = json.loads(invoke("best", "tiny", "--json", "--storage", url).stdout)["top"]
    other = Path("other.toml")
    other.write_text(tiny_study.read_text().replace('"tiny"', '"other"') + "\n[[enqueue]]\ndim = 8\n")
    begun = invoke("run", "other.toml", "--name", "other", "--from", "tiny", "--trials", 8, "--storage", url)
    assert begun.exit_code == 0, begun.output
    assert "its first 5 trials try the best of tiny" in begun.stdout
    assert _enqueued(url, "other") == [*(trial["params"] for trial in best[:5]), {"dim": 8}]
    again = invoke("run", "other.toml", "--name", "other", "--from", "tiny", "--trials", 9, "--storage", url)
    assert "it exists already and goes on as it began: --from tiny changes nothing" in again.stdout
    assert len(_enqueued(url, "other")) == 6


def test_a_value_outside_the_new_space_is_left_to_the_sampler(invoke: Invoke, tiny_study: Path, url: str) -> None:
    assert invoke("run", "tiny.toml", "--trials", 2, "--set", "study.pruner=none", "--storage", url).exit_code == 0
    begun = invoke(
        *("run", "tiny.toml", "--name", "wider", "--from", "tiny", "--trials", 3, "--storage", url),
        *("--set", "space.dim={choices = [12, 20]}"),
    )
    assert begun.exit_code == 0, begun.output
    assert [list(params) for params in _enqueued(url, "wider")] == [["learning_rate"]] * 2


def test_widths_block_by_block_come_from_a_study_with_one_width_and_from_one_with_several(
    invoke: Invoke, tiny_study: Path, url: str
) -> None:
    two_blocks = ("--trials", 1, "--set", "study.pruner=none", "--set", "fixed.num_blocks=2", "--storage", url)
    assert invoke("run", "tiny.toml", *two_blocks).exit_code == 0
    by_block = ("--set", "space.channel_width={low = 4, high = 64, each_block = true}")
    for name, source in (("first", "tiny"), ("second", "first")):
        begun = invoke("run", "tiny.toml", "--name", name, "--from", source, *by_block, *two_blocks)
        assert begun.exit_code == 0, begun.output
    (first,), (second,) = _enqueued(url, "first"), _enqueued(url, "second")
    assert first == second
    assert {name for name in first if name.startswith("channel_width")} == {"channel_width_1", "channel_width_2"}


def test_a_study_that_is_not_there_or_has_nothing_to_give_is_refused_before_anything_is_made(invoke: Invoke) -> None:
    assert invoke("run", "tiny.toml", "--trials", 1, "--set", "study.pruner=none").exit_code == 0
    refused = invoke("run", "tiny.toml", "--name", "new", "--from", "tinny")
    assert (refused.exit_code, "Did you mean 'tiny'?" in refused.stderr) == (2, True)
    refused = invoke(
        *("run", "tiny.toml", "--name", "new", "--from", "tiny"),
        *("--set", "space.dim={choices = [333]}", "--set", "space.learning_rate={low = 0.5, high = 0.9}"),
    )
    assert refused.exit_code == 2
    assert "--from tiny: none of its complete trials fits into [space] of 'new'" in refused.stderr
    assert [each["study"] for each in json.loads(invoke("studies", "--json").stdout)] == ["tiny"]
