"""Tests of study/halving.py: which trials pause, and which of those resume."""

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, strategies as st
from optuna.trial import FrozenTrial, TrialState, create_trial

from kmnist_search.database.trial_writer import PAUSED_KEY
from kmnist_search.queue.queue import Paused
from kmnist_search.study.halving import Halving
from kmnist_search.study.samplers import halving_of
from kmnist_search.study.second_objective import Sizes
from kmnist_search.study_file.schema import PrunerConfig

HALVING = Halving.of(min_epochs=1, epochs=9, factor=3, maximizes=True)


def trial(number: int, reports: Mapping[int, float], *, paused: int | None = None, value: float = 0.5) -> FrozenTrial:
    state = TrialState.RUNNING if paused is None else TrialState.PRUNED
    if 9 in reports:
        state = TrialState.COMPLETE
    attributes = {} if paused is None else {PAUSED_KEY: paused}
    made = create_trial(
        state=state,
        value=value if state == TrialState.COMPLETE else None,
        intermediate_values=dict(reports),
        system_attrs=attributes,
    )
    made.number, made._trial_id = number, number
    return made


def test_rungs_are_powers_of_the_factor_below_the_last_epoch() -> None:
    assert HALVING.rungs == (1, 3)
    assert Halving.of(min_epochs=2, epochs=17, factor=2, maximizes=True).rungs == (2, 4, 8, 16)
    assert Halving.of(min_epochs=9, epochs=9, factor=3, maximizes=True).rungs == ()


def test_the_first_trials_pause_because_a_third_of_them_is_none() -> None:
    for others in range(2):
        trials = [trial(number, {1: 0.1}, paused=1) for number in range(others)]
        assert not HALVING.passes([*trials, trial(others, {1: 0.9})], others, 1)


def test_a_trial_that_is_among_the_best_third_continues_at_once() -> None:
    paused = [trial(number, {1: 0.5}, paused=1) for number in range(2)]
    assert HALVING.passes([*paused, trial(2, {1: 0.6})], 2, 1)
    assert not HALVING.passes([*paused, trial(2, {1: 0.4})], 2, 1)


def test_lower_is_better_where_the_metric_is_a_loss() -> None:
    halving = Halving.of(min_epochs=1, epochs=9, factor=3, maximizes=False)
    paused = [trial(number, {1: 0.5}, paused=1) for number in range(2)]
    assert halving.passes([*paused, trial(2, {1: 0.4})], 2, 1)
    assert not halving.passes([*paused, trial(2, {1: 0.6})], 2, 1)


def test_a_paused_trial_resumes_once_enough_others_are_behind_it() -> None:
    trials = [trial(0, {1: 0.7}, paused=1), trial(1, {1: 0.5}, paused=1)]
    assert HALVING.next_paused(trials, is_last_chance=False) is None
    trials.append(trial(2, {1: 0.6}, paused=1))
    assert HALVING.next_paused(trials, is_last_chance=False) == Paused(trial_id=0, rung=1)


def test_of_several_the_one_at_the_highest_rung_resumes_first() -> None:
    far = [trial(number, {1: 0.9, 2: 0.9, 3: 0.8 + number / 100}, paused=3) for number in range(3)]
    near = [trial(number, {1: 0.95}, paused=1) for number in range(3, 9)]
    assert HALVING.next_paused([*far, *near], is_last_chance=False) == Paused(trial_id=2, rung=3)
    assert HALVING.next_paused([*far[:2], *near], is_last_chance=False) == Paused(trial_id=3, rung=1)


def test_trials_that_went_on_still_count_where_they_were() -> None:
    ahead = [trial(0, {1: 0.9, 2: 0.9}), trial(1, dict.fromkeys(range(1, 10), 0.8))]
    behind = [trial(number, {1: 0.5}, paused=1) for number in range(2, 8)]
    assert HALVING.next_paused([*ahead, *behind], is_last_chance=False) is None
    more = [trial(8, {1: 0.4}, paused=1)]
    assert HALVING.next_paused([*ahead, *behind, *more], is_last_chance=False) == Paused(trial_id=2, rung=1)


def test_a_trial_that_was_ended_for_good_does_not_resume() -> None:
    diverged = trial(0, {1: 0.9}, paused=1)
    diverged.system_attrs = {}
    others = [trial(number, {1: 0.5}, paused=1) for number in range(1, 3)]
    assert HALVING.next_paused([diverged, *others], is_last_chance=False) is None


def test_nobody_waits_behind_a_trial_that_diverged() -> None:
    diverged = trial(0, {1: 0.9, 2: 0.9}, paused=1)
    diverged.system_attrs = {}
    assert HALVING.next_paused([diverged, trial(1, {1: 0.2}, paused=1)], is_last_chance=True) == Paused(
        trial_id=1, rung=1
    )


def test_nobody_waits_behind_a_trial_whose_loss_is_not_a_number() -> None:
    losses = Halving.of(min_epochs=1, epochs=9, factor=3, maximizes=False)
    trials = [trial(0, {1: math.nan}), *(trial(number, {1: 0.5 + number / 10}, paused=1) for number in range(1, 4))]
    assert losses.next_paused(trials, is_last_chance=False) == Paused(trial_id=1, rung=1)
    assert not losses.passes(trials, 0, 1)


def test_at_the_last_chance_one_trial_passes_each_rung_so_that_a_small_study_has_a_complete_one() -> None:
    alone = [trial(0, {1: 0.3}, paused=1)]
    assert HALVING.next_paused(alone, is_last_chance=False) is None
    assert HALVING.next_paused(alone, is_last_chance=True) == Paused(trial_id=0, rung=1)
    further = [trial(0, {1: 0.3, 2: 0.3, 3: 0.3}, paused=3), trial(1, {1: 0.2}, paused=1)]
    assert HALVING.next_paused(further, is_last_chance=True) == Paused(trial_id=0, rung=3)
    complete = [trial(0, dict.fromkeys(range(1, 10), 0.3)), trial(1, {1: 0.2}, paused=1)]
    assert HALVING.next_paused(complete, is_last_chance=True) is None


def test_with_small_nets_as_second_objective_the_best_of_each_size_pass_first() -> None:
    sizes = {0.9: 3, 0.8: 9, 0.7: 2, 0.6: 5, 0.1: 1, 0.5: 4}
    by_size = replace(HALVING, sizes=Sizes(lambda params: sizes[params["accuracy"]]))
    trials = []
    for number, accuracy in enumerate(sizes):
        made = trial(number, {1: accuracy}, paused=1)
        made.params = {"accuracy": accuracy}
        trials.append(made)
    assert [by_size.passes(trials, number, 1) for number in range(6)] == [True, False, True, False, False, False]
    assert [HALVING.passes(trials, number, 1) for number in range(6)] == [True, True, False, False, False, False]


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), min_size=1, max_size=40))
def test_of_what_one_worker_tries_a_third_or_more_passes_each_rung_and_the_best_does(
    finals: list[float],
) -> None:
    """Work as a worker does, until nothing is left."""
    trials: dict[int, FrozenTrial] = {}
    new = iter(enumerate(finals))
    while True:
        paused = HALVING.next_paused(list(trials.values()), is_last_chance=False)
        if paused is not None:
            number, value = paused.trial_id, trials[paused.trial_id].intermediate_values[1]
            reports = dict(trials[number].intermediate_values)
        else:
            following = next(new, None)
            if following is None:
                break
            (number, value), reports = following, {}
        for epoch in range(len(reports) + 1, 10):
            reports[epoch] = value
            trials[number] = trial(number, reports)
            if epoch in HALVING.rungs and not HALVING.passes(trials.values(), number, epoch):
                trials[number] = trial(number, reports, paused=epoch)
                break
    reached = {epoch: sum(epoch in each.intermediate_values for each in trials.values()) for epoch in (1, 3, 9)}
    assert reached[1] == len(finals)
    assert reached[3] >= reached[1] // 3
    assert reached[9] >= reached[3] // 3
    best = max(trials.values(), key=lambda each: each.intermediate_values[1])
    assert len(finals) < 3 or best.last_step != 1


@pytest.mark.parametrize(("epochs", "rungs"), [(1, ()), (2, (1,)), (5, (1, 3)), (9, (3,)), (27, (9,)), (30, (10,))])
def test_unless_a_study_file_says_otherwise_trials_pause_first_after_a_third_of_their_epochs(
    epochs: int, rungs: tuple[int, ...]
) -> None:
    halving = halving_of(PrunerConfig(), epochs=epochs, maximizes=True)
    assert halving is not None
    assert halving.rungs == rungs
