"""The sentences of a report, for figures that call for each of them; its pictures; its order of predictions."""

import base64
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kmnist_search.charts.predictions import Predictions
from kmnist_search.evaluation.metrics import (
    Candidate,
    Figures,
    FinalFigures,
    Metrics,
    Opening,
    PairedTest,
    Recipe,
    Rerun,
    StudyFigures,
)
from kmnist_search.references.published import HEADLINES, REFERENCES
from kmnist_search.report import sentences
from kmnist_search.report.templating import data_uri


def partly(kind: type[Figures], **figures: Any) -> Any:
    """A group of figures of which only some are filled in."""
    return kind.model_construct(**figures)


TEST = Predictions(
    probabilities=np.eye(10, dtype=np.float32)[[3, 3, 5, 1]] * np.array([[0.6], [0.9], [0.8], [0.7]], dtype=np.float32),
    images=np.arange(4, dtype=np.uint8)[:, None, None] * np.ones((4, 28, 28), dtype=np.uint8),
    labels=np.array([2, 3, 4, 1]),
)


def with_test(**figures: Any) -> Any:
    return partly(Metrics, test=partly(FinalFigures, **figures))


def test_wrong_images_come_with_the_most_confident_first() -> None:
    found = TEST.most_confidently_wrong(40)
    assert [(each.label, each.predicted, int(each.picture[0, 0])) for each in found] == [(4, 5, 2), (2, 3, 0)]
    assert [each.probability for each in found] == pytest.approx([0.8, 0.6])
    assert len(TEST.most_confidently_wrong(1)) == 1


def test_right_images_are_one_of_each_class_that_has_any() -> None:
    found = TEST.most_confidently_right()
    assert [each.label for each in found] == [1, 3]
    assert [each.probability for each in found] == pytest.approx([0.7, 0.9])


@pytest.mark.parametrize(
    ("gap", "said"),
    [(0.0123, "gave 1.23 points less."), (-0.002, "gave 0.20 points more."), (0.00001, "gave the same.")],
)
def test_the_gap_between_promise_and_test_is_said_in_words(gap: float, said: str) -> None:
    assert sentences.promise(with_test(val_accuracy=0.98, gap=gap)).endswith(said)


def test_one_seed_says_nothing_about_seeds() -> None:
    one = sentences.intervals(with_test(seeds_interval=None, sampling_interval=(0.9, 0.95), models=(None,)))
    same = sentences.intervals(with_test(seeds_interval=None, sampling_interval=(0.9, 0.95), models=(None, None)))
    assert same[0] == "All models had the same accuracy, which does not show how much the seed matters."
    assert one[0] == "One model does not show how much the seed matters."
    assert "90.00 to 95.00 %" in one[1]


def _opening(recipe: str) -> Any:
    return partly(Opening, recipe_digest=recipe)


def test_a_second_recipe_that_saw_the_test_set_is_warned_of() -> None:
    once = partly(Metrics, ledger=(_opening("a"), _opening("a")))
    assert sentences.warning(once) == ""
    assert sentences.looks(once).endswith("2 times, by models of 1 recipe.")
    twice = partly(Metrics, ledger=(_opening("a"), _opening("b")))
    assert sentences.warning(twice).startswith("To choose among these 2 recipes is")


def _candidate(trial: int, luck: float | None) -> Any:
    mean = None if luck is None else 0.9 - luck
    rerun = partly(Rerun, val_loss=0.5, epochs=(None,) * 3)
    return partly(
        Candidate, trial=trial, study_val_accuracy=0.9, mean_val_accuracy=mean, luck=luck, reruns=(rerun, rerun)
    )


@pytest.mark.parametrize(
    ("luck", "said"),
    [
        (0.01, "+1.00 points of its score may have been luck."),
        (-0.01, "the reruns confirm its score."),
        (None, "its trial was not rerun."),
    ],
)
def test_luck_is_that_of_the_best_trial_of_the_study(luck: float | None, said: str) -> None:
    study = partly(StudyFigures, best_trial=4, epochs=3)
    metrics = partly(Metrics, study=study, candidates=(_candidate(9, 0.5), _candidate(4, luck)))
    assert sentences.luck(metrics).endswith(said)


def test_luck_is_not_told_from_reruns_of_other_epochs_and_the_numbers_of_epochs_are() -> None:
    study, recipe = partly(StudyFigures, best_trial=4, epochs=5), partly(Recipe, epochs=5)
    metrics = partly(Metrics, study=study, candidates=(_candidate(4, 0.01),), recipe=recipe)
    assert sentences.luck(metrics).endswith("which had other epochs: how much of its score was luck is not known.")
    assert "(5 for a trial, 3 for a rerun, 5 for a final model)" in sentences.other_epochs(metrics)
    same = partly(Metrics, study=partly(StudyFigures, epochs=3), candidates=(), recipe=partly(Recipe, epochs=3))
    assert sentences.other_epochs(same) == ""


@pytest.mark.parametrize(
    ("p_value", "distinguishable", "said"),
    [
        (0.01, True, "The difference is significant (p = 0.01, t)."),
        (0.4, False, "The difference is not significant (p = 0.4, t)."),
        (None, False, "There are too few reruns to test whether this is chance."),
    ],
)
def test_the_paired_test_is_said_in_words(p_value: float | None, distinguishable: bool, said: str) -> None:
    test = PairedTest(
        winner=1, runner_up=2, mean_difference=0.01, p_value=p_value, distinguishable=distinguishable, method="t"
    )
    sentence = sentences.paired_test(partly(Metrics, paired_test=test))
    assert sentence.startswith("By the mean of the reruns, trial 1 is 1.00 points better than trial 2")
    assert sentence.endswith(said)


def test_one_candidate_leaves_nothing_to_choose() -> None:
    sentence = sentences.paired_test(partly(Metrics, paired_test=None))
    assert sentence == "There was only one candidate."


def test_a_picture_is_ink_on_paper() -> None:
    image = np.zeros((28, 28), dtype=np.uint8)
    image[3, 5] = 255
    kind, _, text = data_uri(image).partition(",")
    assert kind == "data:image/png;base64"
    shown = np.asarray(Image.open(BytesIO(base64.b64decode(text))))
    assert (shown == 255 - image).all()


def test_all_published_systems_chose_by_test_images() -> None:
    assert [reference.name for reference in HEADLINES] == ["S0", "S1", "S2", "S3", "S4"]
    assert {reference.chosen_on for reference in REFERENCES} == {"the test images"}
    assert {r.name for r in HEADLINES if r.dataset == "kmnist"} == {"S0", "S1", "S2"}
