"""Tests of evaluation/scoring.py: the figures of a model, against figures calculated by hand."""

import numpy as np
import pytest

from kmnist_search.evaluation.scoring import score

NAMES = ("a", "b", "c")


def test_the_figures_are_those_worked_out_by_hand() -> None:
    labels = np.array([0, 0, 0, 1, 1])
    probabilities = np.array(
        [[0.95, 0.05, 0.0], [0.55, 0.45, 0.0], [0.12, 0.88, 0.0], [0.15, 0.85, 0.0], [0.65, 0.35, 0.0]],
        dtype=np.float32,
    )
    kept = score(probabilities, labels, class_names=NAMES, seed=7)
    assert kept.test_accuracy == 3 / 5
    assert kept.confusion == ((2, 1, 0), (1, 1, 0), (0, 0, 0))
    first, second, third = kept.classes
    assert [first.precision, first.recall, first.images] == pytest.approx([2 / 3, 2 / 3, 3])
    assert [second.precision, second.recall, second.images] == pytest.approx([1 / 2, 1 / 2, 2])
    assert (third.precision, third.recall, third.images) == (None, 0.0, 0)
    assert [(each.low, each.images, each.accuracy) for each in kept.calibration if each.images] == [
        (0.5, 1, 1.0),
        (0.6, 1, 0.0),
        (0.8, 2, 0.5),
        (0.9, 1, 1.0),
    ]
    by_bin = (1 - 0.55) + 0.65 + 2 * (0.865 - 0.5) + (1 - 0.95)
    assert kept.calibration_error == pytest.approx(by_bin / 5, abs=1e-6)


def test_a_sure_and_right_model_is_perfectly_calibrated() -> None:
    kept = score(np.eye(3, dtype=np.float32), np.arange(3), class_names=NAMES, seed=0)
    assert (kept.test_accuracy, kept.calibration_error) == (1.0, 0.0)
    assert sum(each.images for each in kept.calibration) == 3
