"""The samplers of a study: what saves them time must not change what they propose."""

import random
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from kmnist_search.optuna_internals import KnownRows
from kmnist_search.study.samplers import sampler_of
from kmnist_search.study_file.schema import SamplerConfig
from kmnist_search.study_file.space import Choices, FloatRange, Hyperparameter, IntRange

SPACE: dict[str, Hyperparameter] = {
    "rate": FloatRange(low=1e-4, high=1e-1, log=True),
    "depth": IntRange(low=1, high=8),
    "width": Choices(choices=(8, 16, 32)),
    "drop": FloatRange(low=0.0, high=0.3),
    "always": Choices(choices=("one",)),
}


def _proposals(sampler: Any, study: optuna.Study) -> list[dict[str, Any]]:
    found = []
    for number in range(40):
        study.sampler = sampler(number)
        trial = study.ask()
        for name, hyperparameter in SPACE.items():
            hyperparameter.suggest(trial, name)
        found.append(trial.params)
        if number % 7 == 3:
            trial.report(trial.params["drop"], 1)
            study.tell(trial, state=TrialState.PRUNED)
        elif number % 7 == 4:
            study.tell(trial, state=TrialState.FAIL)
        elif number % 7 != 5:  # else it goes on running
            study.tell(trial, trial.params["drop"] - abs(trial.params["depth"] - 3))
    return found


def test_proposals_are_those_of_optunas_own_sampler() -> None:
    known_rows: KnownRows = {}
    config = SamplerConfig(startup_trials=5)
    ours = _proposals(lambda number: sampler_of(config, SPACE, number, known_rows), optuna.create_study())
    assert known_rows
    own = _proposals(
        lambda number: optuna.samplers.TPESampler(n_startup_trials=5, multivariate=True, seed=number),
        optuna.create_study(),
    )
    for ours_here, own_here in zip(ours[:5], own[:5], strict=True):
        assert ours_here == own_here
    # The order in which a space lists its hyperparameters decides which random number each takes.
    assert [set(params) for params in ours] == [set(params) for params in own]
    forgetful = _proposals(lambda number: sampler_of(config, SPACE, number, {}), optuna.create_study())
    assert ours == forgetful


def test_what_is_remembered_is_what_optuna_would_work_on(monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.create_study()
    config, known_rows = SamplerConfig(startup_trials=5), KnownRows()
    _proposals(lambda number: sampler_of(config, SPACE, number, known_rows), study)
    sampler: Any = sampler_of(config, SPACE, 0, known_rows)
    trials: list[FrozenTrial] = study.get_trials(deepcopy=False)
    space = sampler.infer_relative_search_space(study, trials[0])
    assert "always" not in space
    ours = sampler._get_internal_repr(trials, space, study)
    own = optuna.samplers.TPESampler(multivariate=True)._get_internal_repr(trials, space, study)
    assert ours.keys() == own.keys()
    for name, column in ours.items():
        assert column.tolist() == own[name].tolist()


def test_numeric_choices_are_proposed_as_their_positions_would_be() -> None:
    widths = (8, 16, 32, 48, 64, 96)
    space: dict[str, Hyperparameter] = {"name": Choices(choices=("a", "b")), "width": Choices(choices=widths)}
    listed: dict[str, BaseDistribution] = {
        name: optuna.distributions.CategoricalDistribution(spec.values()) for name, spec in space.items()
    }
    positions = listed | {"width": optuna.distributions.IntDistribution(0, len(widths) - 1)}
    draw = random.Random(0)
    ours, own = optuna.create_study(), optuna.create_study()
    for _ in range(20):
        at, name = draw.randrange(len(widths)), draw.choice("ab")
        value = abs(at - 3) + draw.random()
        ours.add_trial(
            optuna.create_trial(value=value, params={"name": name, "width": widths[at]}, distributions=listed)
        )
        own.add_trial(optuna.create_trial(value=value, params={"name": name, "width": at}, distributions=positions))
    found = []
    for seed in range(40):
        ours.sampler = sampler_of(SamplerConfig(), space, seed, {})
        own.sampler = optuna.samplers.TPESampler(multivariate=True, seed=seed)
        trial, expected = ours.ask(), own.ask(positions)
        params = {name: spec.suggest(trial, name) for name, spec in space.items()}
        assert params == expected.params | {"width": widths[expected.params["width"]]}
        assert trial.distributions == listed
        found.append(params["width"])
    assert len(set(found)) > 2


@pytest.mark.parametrize(
    ("choices", "ordered"),
    [((8, 16, 32), True), ((0, 0.1, 0.5), True), ((32, 16), False), ((8, 8), False), ((True, False), False),
     (("a", "b"), False), ((8, "all"), False)],
)  # fmt: skip
def test_choices_are_ordered_if_they_are_rising_numbers(choices: tuple[Any, ...], ordered: bool) -> None:
    assert Choices(choices=choices).are_ordered is ordered


def test_a_hyperparameter_with_a_condition_is_learned_from_the_trials_that_have_it() -> None:
    space: dict[str, Hyperparameter] = {
        "optimizer": Choices(choices=("adamw", "sgd")),
        "momentum": FloatRange(low=0.0, high=1.0, when={"optimizer": ("sgd",)}),
    }
    known_rows: KnownRows = {}
    study = optuna.create_study()
    for number in range(60):
        study.sampler = sampler_of(SamplerConfig(), space, number, known_rows)
        trial = study.ask()
        optimizer = space["optimizer"].suggest(trial, "optimizer")
        momentum = space["momentum"].suggest(trial, "momentum") if optimizer == "sgd" else 0.0
        study.tell(trial, abs(momentum - 0.7))
    chosen = [trial.params["momentum"] for trial in study.trials[40:] if "momentum" in trial.params]
    assert len(chosen) > 10
    assert sum(0.5 < momentum < 0.9 for momentum in chosen) > 0.7 * len(chosen)
    assert len(known_rows) >= 40
