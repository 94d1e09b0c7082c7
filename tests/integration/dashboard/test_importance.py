"""The importances of the report and of the dashboard: the same ones, of the same trials."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from werkzeug.test import Client

from kmnist_search.charts import trials as read
from kmnist_search.charts.importance import importances
from kmnist_search.dashboard.database import Database
from kmnist_search.dashboard.server import Access, application
from kmnist_search.database.storage import open_storage
from kmnist_search.optuna_internals import study_id_of
from kmnist_search.study.opening import open_study
from kmnist_search.study.study import SearchStudy
from kmnist_search.study_file.parser import load

SPACES: Mapping[str, BaseDistribution] = {
    "learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
    "num_blocks": IntDistribution(1, 4),
    "optimizer": CategoricalDistribution(["adamw", "sgd"]),
    "momentum": FloatDistribution(0.5, 0.99),
}
STATES = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.COMPLETE, TrialState.FAIL)


def _trial(number: int, *, sign: float) -> FrozenTrial:
    """A trial; half of them are complete, one in five of these with an infinite loss, some without momentum."""
    chance, state = np.random.default_rng(number), STATES[number % 4]
    rate, blocks, optimizer = 10 ** chance.uniform(-4, -2), int(chance.integers(1, 5)), chance.choice(["adamw", "sgd"])
    params = {"learning_rate": float(rate), "num_blocks": blocks, "optimizer": str(optimizer)}
    if optimizer == "sgd":
        params["momentum"] = float(chance.uniform(0.5, 0.99))
    error = abs(np.log10(rate) + 3) + 0.2 * chance.uniform()
    value = sign * (np.inf if number % 10 == 8 else error)
    return create_trial(
        state=state,
        value=value if state == TrialState.COMPLETE else None,
        params=params,
        distributions={name: SPACES[name] for name in params},
        # A pruned trial that would change the importances if it counted.
        intermediate_values={1: sign * blocks} if state == TrialState.PRUNED else {},
    )


@pytest.mark.parametrize("metric", ["val_accuracy", "val_loss"])
@pytest.mark.parametrize("number", [4, 60, 200])
def test_the_report_and_the_dashboard_show_the_same_importances(tiny_study: Path, metric: str, number: int) -> None:
    url = f"sqlite:///{tiny_study.parent / 'kmnist-search.db'}"
    study = open_study(open_storage(url, create=True), load(tiny_study, overrides=[f"study.metric={metric}"]))
    sign = -1.0 if metric == "val_accuracy" else 1.0
    study.optuna.add_trials([_trial(each, sign=sign) for each in range(number)])
    complete = study.ranked(read.complete(read.read(study)))
    ours = importances(complete, study.direction)
    assert f"From the {len(complete)} complete trials" in ours.note
    assert ours.shares == pytest.approx(_in_dashboard(study, url))


def _in_dashboard(study: SearchStudy, url: str) -> dict[str, float]:
    ask = Client(application(Database(url), Access(host="127.0.0.1")))
    path = f"/api/studies/{study_id_of(study.optuna)}/param_importances"
    (shown,) = ask.get(path, base_url="http://127.0.0.1:8080").get_json()["param_importances"]
    return {each["name"]: each["importance"] for each in shown}
