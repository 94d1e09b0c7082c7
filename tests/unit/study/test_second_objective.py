"""Tests of study/second_objective.py: which nets are the best of their size, and what is proposed to find them."""

from itertools import pairwise

import numpy as np
import optuna
from hypothesis import given, strategies as st

from kmnist_search.config.seeds import derived_seed
from kmnist_search.study.samplers import Samplers
from kmnist_search.study.second_objective import Sizes, front_ranks, scalarised
from kmnist_search.study_file.schema import SamplerConfig
from kmnist_search.study_file.space import IntRange

FEW = st.sampled_from([0.1, 0.2, 0.3, 0.4])
SPACE = {"width": IntRange(low=1, high=100), "depth": IntRange(low=1, high=8)}


def peeled(trials: list[tuple[float, float]]) -> list[int]:
    """The ranks by the definition: take away one front after the other. Of equal trials the later one is worse."""
    ranks, left, rank = [0] * len(trials), set(range(len(trials))), 0
    while left:
        front = {
            a
            for a in left
            if not any(
                trials[b][0] >= trials[a][0] and trials[b][1] <= trials[a][1] and (trials[a] != trials[b] or b < a)
                for b in left - {a}
            )
        }
        for each in front:
            ranks[each] = rank
        left, rank = left - front, rank + 1
    return ranks


@given(st.lists(st.tuples(FEW, FEW), max_size=30))
def test_ranks_are_those_of_one_front_after_the_other(trials: list[tuple[float, float]]) -> None:
    assert front_ranks([value for value, _ in trials], [size for _, size in trials]) == peeled(trials)


def test_with_nets_of_one_size_the_ranks_are_the_order_of_the_values() -> None:
    assert front_ranks([0.3, 0.9, 0.5, 0.9], [7, 7, 7, 7]) == [3, 0, 2, 1]


def test_seeds_weigh_error_against_size_differently_and_each_prefers_a_net_of_the_front() -> None:
    log_errors_T, sizes_T = np.log([0.5, 0.2, 0.1, 0.3, 0.05, 0.08]), [10, 100, 1000, 1000, 10_000, 20_000]
    preferred = {int(np.argmin(scalarised(log_errors_T, sizes_T, seed=seed))) for seed in range(200)}
    assert preferred == {0, 1, 2, 4}


def test_equal_errors_or_equal_sizes_do_not_matter() -> None:
    assert np.isfinite(scalarised(np.log([0.5, 0.5]), [10, 20], seed=0)).all()
    assert scalarised(np.log([0.5, 0.5]), [10, 10], seed=0).tolist() == [0, 0]


def test_proposals_are_spread_over_the_sizes_where_without_a_second_objective_they_are_large() -> None:
    """The error falls with the width, so the metric alone leads to the largest nets."""
    widths = {}
    for sizes in (None, Sizes(lambda params: params["width"] * 100)):
        samplers = Samplers(SamplerConfig(name="gp", startup_trials=5), SPACE, epochs=1, maximizes=True, sizes=sizes)
        study = optuna.create_study(direction="maximize")
        for number in range(25):
            study.sampler = samplers.sampler(derived_seed(0, number, 1))
            trial = study.ask()
            width, _ = (spec.suggest(trial, name) for name, spec in SPACE.items())
            value = 1 - 1 / (1 + width)
            trial.report(value, step=1)
            study.tell(trial, value)
        widths[sizes is None] = sorted(trial.params["width"] for trial in study.trials[5:])
    assert min(widths[True]) > 50
    assert min(widths[False]) < 10 < 50 < max(widths[False])
    assert max(b - a for a, b in pairwise(widths[False])) < 50
