"""Proposals under constraints: none is too large, and the sampler still learns."""

import math
from collections.abc import Mapping
from typing import Any

import optuna
import pytest

from kmnist_search.errors import ConfigError
from kmnist_search.study.samplers import Samplers
from kmnist_search.study_file.schema import SamplerConfig
from kmnist_search.study_file.space import Choices, FloatRange, Hyperparameter, IntRange

SPACE: dict[str, Hyperparameter] = {
    "width": Choices(choices=(8, 16, 32, 64)),
    "depth": IntRange(low=1, high=8),
    "rate": FloatRange(low=0.0, high=1.0),
    "always": Choices(choices=(3,)),
}


def _searched(config: SamplerConfig, most: int, trials: int) -> optuna.Study:
    def allows(params: Mapping[str, Any]) -> bool:
        return bool(params["width"] * params["depth"] <= most)

    samplers = Samplers(config, SPACE, epochs=1, maximizes=False, allows=allows)
    study = optuna.create_study(direction="minimize")
    for number in range(trials):
        study.sampler = samplers.sampler(number)
        if number == 3:
            study.enqueue_trial({"width": 32})
        trial = study.ask()
        params = {name: spec.suggest(trial, name) for name, spec in SPACE.items()}
        loss = math.exp(-0.05 * params["width"] * params["depth"] + 5 * abs(params["rate"] - 0.5))
        trial.report(loss, 1)
        study.tell(trial, loss)
    return study


@pytest.mark.parametrize("name", ["random", "tpe", "gp"])
def test_no_trial_is_larger_than_the_constraint_allows(name: Any) -> None:
    study = _searched(SamplerConfig(name=name, startup_trials=5), 40, 40)
    sizes = [trial.params["width"] * trial.params["depth"] for trial in study.trials]
    assert max(sizes) <= 40
    assert len(set(sizes)) > 3
    assert study.trials[3].params["width"] == 32  # enqueued, and the rest fits to it
    assert study.trials[3].params["depth"] == 1
    if name != "random":
        assert study.best_value < math.exp(-0.05 * 30)


def test_a_constraint_that_a_few_nets_meet_is_kept_when_the_sampler_looks_elsewhere() -> None:
    study = _searched(SamplerConfig(name="tpe", startup_trials=2), 32, 12)
    assert all(trial.params["width"] * trial.params["depth"] <= 32 for trial in study.trials)


def test_constraints_that_no_net_meets_are_told() -> None:
    with pytest.raises(ConfigError, match="so tight that none of 20,000 random nets"):
        _searched(SamplerConfig(), 7, 1)
