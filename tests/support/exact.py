"""What stands in a database, read past the code under test, and what must stand there after any fault."""

import json
import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError

from kmnist_search.config import TrialConfig
from kmnist_search.database.trial_writer import PAUSED_KEY
from kmnist_search.database.url import check_url
from kmnist_search.queue.attempts import LEASE_RAN_OUT, PROCESS_DIED
from tests.support.forked import Run

ENDED = re.compile(r"^\[\d+/\d+\] trial (\d+) (?:complete|pruned|failed)", re.MULTILINE)
CURVES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
#: How the attempt that ends a trial says so.
ENDINGS = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "fail"}


class Look:
    """Looks into the study `tiny` of a database; holds no connection between two looks."""

    def __init__(self, url: str) -> None:
        self.url = check_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = create_engine(self.url, poolclass=NullPool)

    def rows(self, sql: str, **values: Any) -> list[Any]:
        """Return what a query gives; nothing while the tables are not made."""
        try:
            with self.engine.connect() as connection:
                return list(connection.execute(text(sql), values).all())
        except DBAPIError as error:
            if "no such table" in str(error.orig) or "does not exist" in str(error.orig):
                return []
            raise

    def step(self, number: int = 0) -> int:
        """Return the last epoch that the database has heard of for a trial."""
        sql = "SELECT max(step) FROM trial_intermediate_values JOIN trials USING (trial_id) WHERE number = :number"
        return next((row[0] or 0 for row in self.rows(sql, number=number)), 0)

    def attempts(self, number: int = 0) -> list[dict[str, Any]]:
        sql = (
            "SELECT value_json FROM trial_user_attributes JOIN trials USING (trial_id) "
            "WHERE number = :number AND key = 'attempts'"
        )
        found: list[dict[str, Any]] = json.loads(next((row[0] for row in self.rows(sql, number=number)), "[]"))
        return found

    def hows(self, number: int = 0) -> list[str | None]:
        """Return how each attempt at a trial ended; None for one that runs."""
        return [attempt.get("how") for attempt in self.attempts(number)]

    def states(self) -> Counter[str]:
        return Counter(row[0] for row in self.rows("SELECT state FROM trials"))

    def running(self) -> int:
        return self.states()["RUNNING"]

    def trials(self) -> list[FrozenTrial]:
        """Return all trials as optuna reads them."""
        storage = optuna.storages.RDBStorage(
            self.url.render_as_string(hide_password=False), engine_kwargs={"poolclass": NullPool}
        )
        return optuna.load_study(study_name="tiny", storage=storage).trials


def assert_exact(look: Look, runs: Sequence[Run], *, trials: int, epochs: int, lost: Collection[int] = ()) -> None:
    """Assert that a study has ended with what was asked for, whatever happened on the way.

    Args:
        look: into its database.
        runs: all that have worked on it.
        trials: as many are finished, and there is no other.
        epochs: of a complete trial.
        lost: numbers of the trials that were failed because they lost their worker too often.
    """
    found = look.trials()
    assert [trial.number for trial in found] == list(range(trials))
    assert [trial.state.name for trial in found if not trial.state.is_finished()] == []
    assert look.rows("SELECT * FROM kmnist_search_leases") == []
    for trial in found:
        if trial.number in lost:
            _assert_failed_by_losses(trial)
        else:
            _assert_ended_once(trial)
            _assert_whole(trial, epochs)
    for run in runs:
        assert "Traceback" not in run.output
    told = Counter(number for run in runs for number in ENDED.findall(run.output))
    assert set(told.values()) <= {1}, told  # a worker killed just after it ended a trial could not tell


def _assert_ended_once(trial: FrozenTrial) -> None:
    assert trial.state in (TrialState.COMPLETE, TrialState.PRUNED), f"trial {trial.number}: {trial.user_attrs}"
    assert trial.datetime_start is not None
    assert trial.datetime_complete is not None
    assert trial.datetime_start <= trial.datetime_complete
    *earlier, last = trial.user_attrs["attempts"]
    is_paused = PAUSED_KEY in trial.system_attrs and trial.state == TrialState.PRUNED
    assert last["how"] == ("paused" if is_paused else ENDINGS[trial.state])
    assert last["epochs"] == len(trial.intermediate_values)
    assert len({attempt["token"] for attempt in trial.user_attrs["attempts"]}) == len(earlier) + 1
    for attempt in earlier:
        assert attempt["how"].startswith((LEASE_RAN_OUT, PROCESS_DIED, "handed back: ", "paused")), attempt
        assert attempt["ended_at"] <= last["ended_at"]


def _assert_whole(trial: FrozenTrial, epochs: int) -> None:
    attributes, reports = trial.user_attrs, trial.intermediate_values
    assert sorted(reports) == list(range(1, len(reports) + 1))
    assert 0 < len(reports) <= epochs
    if trial.state == TrialState.COMPLETE:
        assert len(reports) == epochs
        assert trial.values == [reports[epochs]]
    for curve in CURVES:
        assert len(attributes[f"{curve}_curve"]) == len(reports), f"trial {trial.number}: {curve}"
    assert attributes["val_accuracy_curve"] == [reports[step] for step in sorted(reports)]
    config = TrialConfig.model_validate_json(json.dumps(attributes["config"]))
    assert attributes["config_digest"] == config.digest
    assert trial.params == {"learning_rate": config.optimizer.learning_rate, "dim": config.patch_mlp.dim}
    assert config.train.epochs == epochs
    assert attributes["seconds"] > 0


def _assert_failed_by_losses(trial: FrozenTrial) -> None:
    assert trial.state == TrialState.FAIL
    hows = [attempt["how"] for attempt in trial.user_attrs["attempts"]]
    assert all(how.startswith((LEASE_RAN_OUT, PROCESS_DIED)) for how in hows)
    assert trial.user_attrs["reason"] == f"lost {len(hows)} times, the last time because {hows[-1]}"
    assert trial.datetime_complete is not None
