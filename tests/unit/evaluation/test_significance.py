"""Tests of evaluation/significance.py: intervals and the paired test, against published figures and simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from kmnist_search.evaluation.significance import mean_interval, paired_p_value, share_interval


def test_the_interval_of_a_mean_is_scipys() -> None:
    values = [0.91, 0.93, 0.915, 0.94]
    expected = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert mean_interval(values) == pytest.approx(expected, rel=1e-12)


def test_the_interval_of_a_mean_of_shares_is_one_of_shares() -> None:
    assert mean_interval([0.95, 1.0]) == pytest.approx((0.6573, 1.0), abs=1e-4)
    assert mean_interval([0.05, 0.0]) == pytest.approx((0.0, 0.3427), abs=1e-4)


def test_one_value_has_no_interval() -> None:
    assert mean_interval([0.9]) is None
    assert paired_p_value([0.01], val_share=0.2) is None


@pytest.mark.parametrize(("hits", "count"), [(9800, 10_000), (9900, 10_000), (0, 50), (50, 50), (1, 3)])
def test_the_interval_of_a_share_is_scipys_wilson(hits: int, count: int) -> None:
    expected = stats.binomtest(hits, count).proportion_ci(method="wilson")
    assert share_interval(hits / count, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_without_a_validation_part_the_paired_test_is_the_ordinary_one() -> None:
    winner, other = np.array([0.95, 0.96, 0.955]), np.array([0.94, 0.955, 0.95])
    expected = stats.ttest_rel(winner, other).pvalue
    assert paired_p_value(list(winner - other), val_share=0.0) == pytest.approx(expected)


def test_overlapping_splits_make_the_paired_test_more_careful() -> None:
    differences = [0.01, 0.005, 0.008]
    plain, corrected = (paired_p_value(differences, val_share=share) for share in (0.0, 1 / 6))
    assert plain is not None
    assert corrected is not None
    assert corrected > plain
    t = np.mean(differences) / math.sqrt(np.var(differences, ddof=1) * (1 / 3 + 0.2))
    assert corrected == pytest.approx(2 * stats.t.sf(t, 2))


def test_the_paired_test_seldom_finds_a_difference_where_there_is_none() -> None:
    chance = np.random.default_rng(0)
    p_values = [paired_p_value(list(chance.normal(0, 0.01, 3)), val_share=1 / 6) or 1.0 for _ in range(2000)]
    assert np.mean(np.array(p_values) < 0.05) < 0.05


def test_differences_that_are_all_the_same_say_nothing_about_chance() -> None:
    assert paired_p_value([0.0, 0.0], val_share=0.2) is None
    assert paired_p_value([0.25, 0.25], val_share=0.2) is None
    assert paired_p_value([0.1 + 0.2, 0.3], val_share=0.2) is None  # but for rounding the same
    assert mean_interval([0.9, 0.9]) is None
