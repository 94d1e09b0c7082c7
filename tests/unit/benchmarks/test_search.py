"""Tests of tests/benchmarks/search: the simulator spends what it says, and shows what was found."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from kmnist_search.study_file.space import Choices
from tests.benchmarks.search import curves, rungs, sizes
from tests.benchmarks.search.compare import Comparison, noise
from tests.benchmarks.search.curves import Curves
from tests.benchmarks.search.simulation import Found, Simulation, World, steps
from tests.benchmarks.search.surrogate import Surrogate, held_out
from tests.benchmarks.search.ways import EPOCHS, SPACE, WAYS

BY_NAME = {way.name: way for way in WAYS}


def _made_up(number: int, *, noise: float = 0.0) -> Curves:
    """Return curves by a formula: wide nets and middling learning rates are best, and all learn with time."""
    draw = np.random.default_rng(0)
    params = []
    for _ in range(number):
        drawn = {name: spec.values()[int(draw.integers(len(spec.values())))] for name, spec in SPACE.items()}
        drawn["learning_rate"], drawn["weight_decay"] = np.exp(draw.uniform(np.log((3e-4, 1e-3)), np.log((3e-2, 0.5))))
        params.append(drawn)
    off = np.array([abs(np.log(each["learning_rate"] / 3e-3)) + np.log(96 / each["dim"]) for each in params])
    error_TE = np.exp(-3 + 0.5 * off[:, None] - 0.1 * np.arange(EPOCHS) + noise * draw.normal(size=(number, EPOCHS)))
    return Curves(params=params, accuracy_TE=1 - np.minimum(error_TE, 0.9), seconds_T=np.full(number, 2.0))


@pytest.fixture(scope="module")
def world() -> World:
    noise_PE = np.random.default_rng(1).normal(size=(20, EPOCHS)) * 0.02
    return World(surrogate=Surrogate(_made_up(60)), noise_PE=noise_PE)


@pytest.mark.parametrize("model", ["process", "networks"])
def test_the_surrogate_ranks_configurations_that_it_has_not_seen(model: str) -> None:
    table = _made_up(60)
    predicted = held_out(table, 5, model)
    assert stats.kendalltau(table.accuracy_TE[:, -1], predicted[:, -1]).statistic > 0.8


def test_without_pruning_each_trial_takes_all_its_epochs(world: World) -> None:
    simulation = Simulation(world, BY_NAME["random"], seed=0)
    found = list(simulation.run(9 * EPOCHS))
    finished = [trial for trial in simulation.storage.get_all_trials(0) if trial.state.is_finished()]
    assert [len(trial.intermediate_values) for trial in finished] == [EPOCHS] * 9
    assert found[-1].epochs <= 9 * EPOCHS
    assert found[-1].seconds == pytest.approx(2.0 * found[-1].epochs, rel=0.05)


def test_several_workers_take_as_many_epochs_in_less_time(world: World) -> None:
    alone, together = (list(Simulation(world, BY_NAME["random"], 0, workers).run(90))[-1] for workers in (1, 4))
    assert together.seconds / together.epochs == pytest.approx(alone.seconds / alone.epochs / 4, rel=0.1)


def test_what_pauses_spends_its_epochs_on_more_trials_and_resumes_the_best(world: World) -> None:
    straight, pausing = (Simulation(world, BY_NAME[name], 0) for name in ("random", "random, halving pauses"))
    list(straight.run(180))
    list(pausing.run(180))
    trials = pausing.storage.get_all_trials(0)
    assert len(trials) > 2 * len(straight.storage.get_all_trials(0))
    assert sum(len(trial.intermediate_values) for trial in trials) == 180
    reached = [sum(epoch in trial.intermediate_values for trial in trials) for epoch in (1, 3, 9)]
    assert reached[0] > 2 * reached[1] > 4 * reached[2] > 0


def test_the_same_seed_finds_the_same(world: World) -> None:
    way = BY_NAME["TPE, halving by 3 pauses"]
    first, second = (list(Simulation(world, way, 5).run(60)) for _ in range(2))
    assert first == second
    assert all(one.epochs < other.epochs for one, other in itertools.pairwise(first))


def test_the_net_found_for_a_size_is_the_best_complete_one_that_is_not_larger(world: World) -> None:
    accuracy = sizes.found(world, "random", 20 * EPOCHS, 0)
    known = accuracy[~np.isnan(accuracy)]
    assert len(known) >= 3
    assert known.tolist() == sorted(known)
    simulation = Simulation(world, BY_NAME["random"], seed=0)
    found = list(simulation.run(20 * EPOCHS))
    assert known[-1] == pytest.approx(found[-1].accuracy)


def test_a_rung_ranks_as_the_end_does_the_better_the_later_it_is() -> None:
    table, again = _made_up(60, noise=0.3), _made_up(60, noise=0.3)
    again.accuracy_TE[:, :-1] = again.accuracy_TE[::-1, :-1]  # of other configurations
    final_T, curve_TE = rungs.in_both(table, again)
    shuffled_E = rungs.correlations(final_T, curve_TE)
    assert shuffled_E[-1] == pytest.approx(1)
    assert abs(shuffled_E[:-1]).max() < 0.5
    assert rungs.correlations(*rungs.in_both(table, table)).min() > 0.5


@pytest.mark.parametrize("name", ["TPE, choices without order", "optuna's GP"])
def test_choices_are_trained_by_their_value_however_they_are_proposed(world: World, name: str) -> None:
    simulation = Simulation(world, BY_NAME[name], 0)
    list(simulation.run(EPOCHS))
    params = simulation.way.suggest(simulation._trials[0].trial)
    for name, spec in SPACE.items():
        assert not isinstance(spec, Choices) or params[name] in spec.choices


def test_found_accuracies_hold_until_the_next_is_found() -> None:
    found = [Found(epochs=2, seconds=1.0, accuracy=0.5), Found(epochs=4, seconds=2.0, accuracy=0.7)]
    found_E = steps(iter(found), np.arange(1, 6))
    assert found_E.tolist() == [0.1, 0.5, 0.5, 0.7, 0.7]


def test_the_epochs_that_a_way_needs_are_those_until_its_median_stays_as_good() -> None:
    found_RE = np.full((3, 900), 0.1)
    found_RE[:, 10:], found_RE[:2, 20:] = 0.5, 0.7
    found_RE[0, 40:] = 0.9
    comparison = Comparison(found_RE=found_RE, epochs=100, seconds=0.0)
    assert comparison.accuracy == 0.7
    assert comparison.epochs_until(0.5) == 11
    assert comparison.epochs_until(0.7) == 21
    assert comparison.epochs_until(0.8) is None


def test_noise_is_what_two_trainings_of_one_configuration_differ_by(tmp_path: Path) -> None:
    names = ["trial", *curves.HYPERPARAMETERS, "seconds_an_epoch", "val_accuracy_1", "val_accuracy_2"]
    config = "64,0.01,0.1,7,32,16,64,2"
    (tmp_path / "first.csv").write_text(f"{','.join(names)}\n0,{config},1.5,0.5,0.9\n1,{config[:-1]}3,1.5,0.5,\n")
    (tmp_path / "second.csv").write_text(f"{','.join(names)}\n0,{config},1.5,0.5,0.8\n")
    found_PE = noise(tmp_path / "first.csv", tmp_path / "second.csv")
    assert found_PE == pytest.approx(np.array([[0.0, np.log(0.5) / np.sqrt(2)]]))
    diverged = curves.read(tmp_path / "first.csv").accuracy_TE[1]
    assert diverged.tolist() == [0.5, 0.1]  # that of a guess
