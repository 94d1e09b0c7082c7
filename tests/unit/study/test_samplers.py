"""The samplers of a study: what saves them time must not change what they propose."""

import math
import random
import statistics
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from kmnist_search.study.samplers import Samplers
from kmnist_search.study_file.schema import SamplerConfig
from kmnist_search.study_file.space import Choices, FloatRange, Hyperparameter, IntRange

SPACE: dict[str, Hyperparameter] = {
    "rate": FloatRange(low=1e-4, high=1e-1, log=True),
    "depth": IntRange(low=1, high=8),
    "width": Choices(choices=(8, 16, 32)),
    "drop": FloatRange(low=0.0, high=0.3),
    "always": Choices(choices=("one",)),
}


def _samplers(
    config: SamplerConfig | None = None, space: dict[str, Hyperparameter] = SPACE, *, maximizes: bool = False
) -> Samplers:
    config = config or SamplerConfig(name="tpe", startup_trials=5)
    return Samplers(config, space, epochs=9, maximizes=maximizes)


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
    ours = _proposals(_samplers().sampler, optuna.create_study())
    own = _proposals(
        lambda number: optuna.samplers.TPESampler(n_startup_trials=5, multivariate=True, seed=number),
        optuna.create_study(),
    )
    for ours_here, own_here in zip(ours[:5], own[:5], strict=True):
        assert ours_here == own_here
    # The order in which a space lists its hyperparameters decides which random number each takes.
    assert [set(params) for params in ours] == [set(params) for params in own]
    forgetful = _proposals(lambda number: _samplers().sampler(number), optuna.create_study())
    assert ours == forgetful


def test_what_is_remembered_is_what_optuna_would_work_on(monkeypatch: pytest.MonkeyPatch) -> None:
    study, samplers = optuna.create_study(), _samplers()
    _proposals(samplers.sampler, study)
    sampler: Any = samplers.sampler(0)
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
    samplers = _samplers(SamplerConfig(name="tpe"), space)
    for seed in range(40):
        ours.sampler = samplers.sampler(seed)
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


@pytest.mark.parametrize("name", ["tpe", "gp"])
def test_a_hyperparameter_with_a_condition_is_learned_from_the_trials_that_have_it(name: Any) -> None:
    space: dict[str, Hyperparameter] = {
        "optimizer": Choices(choices=("adamw", "sgd")),
        "momentum": FloatRange(low=0.0, high=1.0, when={"optimizer": ("sgd",)}),
    }
    study, samplers = optuna.create_study(), _samplers(SamplerConfig(name=name), space)
    for number in range(60):
        study.sampler = samplers.sampler(number)
        trial = study.ask()
        optimizer = space["optimizer"].suggest(trial, "optimizer")
        momentum = space["momentum"].suggest(trial, "momentum") if optimizer == "sgd" else 0.0
        trial.report(abs(momentum - 0.7), 9)
        study.tell(trial, abs(momentum - 0.7))
    chosen = [trial.params["momentum"] for trial in study.trials[40:] if "momentum" in trial.params]
    assert len(chosen) > 10
    assert sum(0.5 < momentum < 0.9 for momentum in chosen) > 0.7 * len(chosen)


def _curve(params: dict[str, Any]) -> list[float]:
    """Return the accuracies of nine epochs: best at rate 0.01, and better with depth."""
    off = abs(math.log10(params["rate"]) + 2) + 0.1 * (8 - params["depth"])
    return [1 - min(0.9, 0.05 * (1 + off) * (1 + 1 / epoch)) for epoch in range(1, 10)]


def _accuracies(study: optuna.Study) -> list[float]:
    """Return what each trial would have after all epochs."""
    return [_curve(trial.params)[-1] for trial in study.trials]


def _search(samplers: Samplers, trials: int, *, pauses: bool, study: optuna.Study | None = None) -> optuna.Study:
    """Search as a study does whose trials pause after three epochs if they are no better than all before."""
    study = study or optuna.create_study(direction="maximize")
    for number in range(trials):
        study.sampler = samplers.sampler(number)
        trial = study.ask()
        params = {name: spec.suggest(trial, name) for name, spec in SPACE.items()}
        curve = _curve(params)
        best = max((other.intermediate_values.get(3, 0.0) for other in study.trials[:-1]), default=0.0)
        ends = 3 if pauses and curve[2] < best else 9
        for epoch, value in enumerate(curve[:ends], start=1):
            trial.report(value, epoch)
        study.tell(trial, **({"state": TrialState.PRUNED} if ends == 3 else {"values": curve[-1]}))
    return study


@pytest.mark.parametrize("pauses", [False, True])
def test_a_gaussian_process_finds_a_narrow_best_from_few_trials_also_from_paused_ones(pauses: bool) -> None:
    config = SamplerConfig(name="gp", startup_trials=5)
    by_model = _search(_samplers(config, maximizes=True), 25, pauses=pauses)
    by_chance = _search(_samplers(SamplerConfig(name="random"), maximizes=True), 25, pauses=False)
    assert statistics.median(_accuracies(by_model)[-10:]) > 0.93 > statistics.median(_accuracies(by_chance)[-10:])
    assert {type(trial.params["width"]) for trial in by_model.trials} == {int}


def test_a_gaussian_process_does_not_propose_what_runs_elsewhere() -> None:
    samplers = _samplers(SamplerConfig(name="gp", startup_trials=5), maximizes=True)
    study = _search(samplers, 15, pauses=False)
    proposed = []
    for _ in range(4):
        study.sampler = samplers.sampler(99)  # the seed of each is the same: only what runs makes a difference
        trial = study.ask()
        proposed.append({name: spec.suggest(trial, name) for name, spec in SPACE.items()})
    assert len({str(params) for params in proposed}) == 4


def test_a_gaussian_process_learns_from_trials_that_diverged() -> None:
    study = optuna.create_study(direction="maximize")
    trial = study.ask()
    params = {name: spec.suggest(trial, name) for name, spec in SPACE.items()}
    study.tell(trial, state=TrialState.PRUNED)  # it has no accuracy
    for depth in (1, 2):
        study.add_trial(
            optuna.create_trial(
                state=TrialState.PRUNED, params=params | {"depth": depth}, distributions=trial.distributions
            )
        )
    config = SamplerConfig(name="gp", startup_trials=5)
    accuracies = _accuracies(_search(_samplers(config, maximizes=True), 25, pauses=True, study=study))
    assert max(accuracies) > 0.94  # the best of 25 random ones is 0.931


def test_among_many_trials_tpe_proposes_in_place_of_a_gaussian_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kmnist_search.study.samplers.MOST_TRIALS", 11)
    proposed: dict[str, dict[str, Any]] = {}
    for name in ("tpe", "gp"):
        study = _search(_samplers(SamplerConfig(name="random"), maximizes=True), 12, pauses=False)
        study.sampler = _samplers(SamplerConfig.model_validate({"name": name}), maximizes=True).sampler(100)
        trial = study.ask()
        proposed[name] = {each: spec.suggest(trial, each) for each, spec in SPACE.items()}
    assert proposed["gp"] == proposed["tpe"]
