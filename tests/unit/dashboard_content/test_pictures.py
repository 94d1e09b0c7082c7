"""The pictures of one trial, decoded and looked at pixel by pixel, and its configuration as a study file."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from optuna.trial import FixedTrial
from PIL import Image

from kmnist_search.charts.predictions import PredictedImage, Predictions
from kmnist_search.dashboard_content.pictures import (
    CELL,
    CURVES_SIZE,
    LABELS,
    confusion_picture,
    curves_picture,
    wrong_picture,
)
from kmnist_search.dashboard_content.recipe import recipe
from kmnist_search.data.catalog import CLASS_NAMES
from kmnist_search.engine.replica import Epoch
from kmnist_search.study_file.parser import loads
from kmnist_search.study_file.schema import SearchFile
from tests.unit.dashboard_content.test_note import STUDY

NAMES = CLASS_NAMES["kmnist"]


def pixels(png: bytes) -> NDArray[np.int64]:
    picture = Image.open(BytesIO(png))
    assert picture.format == "PNG"
    return np.asarray(picture.convert("RGB")).astype(int)


def bluish(image: NDArray[np.int64]) -> NDArray[np.bool_]:
    return image[..., 2] > image[..., 0] + 60


def reddish(image: NDArray[np.int64]) -> NDArray[np.bool_]:
    return image[..., 0] > image[..., 2] + 60


def epochs(*accuracies: tuple[float, float | None]) -> Sequence[Epoch]:
    return [
        Epoch(number=number, train_loss=1.0, train_accuracy=train, val_loss=1.0, val_accuracy=val)
        for number, (train, val) in enumerate(accuracies, start=1)
    ]


def test_curves_rise_from_left_to_right_each_in_its_colour() -> None:
    image = pixels(curves_picture(epochs((0.5, 0.7), (0.6, 0.8), (0.7, 0.9)), "study, trial 3"))
    assert image.shape == (CURVES_SIZE[1], CURVES_SIZE[0], 3)
    plotted = image[62:-40]  # below the legend
    for is_line in (bluish, reddish):
        rows, columns = np.nonzero(is_line(plotted))
        begin, end = rows[columns < columns.min() + 5].mean(), rows[columns > columns.max() - 5].mean()
        assert begin > end + 100
    assert np.nonzero(reddish(plotted))[0].mean() < np.nonzero(bluish(plotted))[0].mean()


@pytest.mark.parametrize("history", [epochs((0.1, 0.2)), epochs((1.0, 1.0), (1.0, 1.0)), epochs((0.5, None))])
def test_a_single_epoch_a_flat_line_and_no_validation_are_drawn_too(history: Sequence[Epoch]) -> None:
    assert bluish(pixels(curves_picture(history, "study, trial 3"))[62:-40]).any() or history[0].train_accuracy == 1.0


def test_right_images_colour_the_diagonal_blue_and_the_most_confused_cell_is_the_reddest() -> None:
    labels = np.array([0] * 10 + [1] * 10 + [2] * 10)
    predicted = np.array([0] * 10 + [2] * 4 + [3] + [1] * 5 + [2] * 10)
    probabilities = np.eye(10, dtype=np.float32)[predicted]
    images = np.zeros((30, 28, 28), dtype=np.uint8)
    counts = Predictions(images=images, labels=labels, probabilities=probabilities).confusion()
    assert (counts[0, 0], counts[1, 2], counts[1, 3], counts[1, 1], counts.sum()) == (10, 4, 1, 5, 30)
    image = pixels(confusion_picture(counts, NAMES, "study, trial 3"))
    side = LABELS + 10 * CELL + 16
    assert image.shape == (side, side, 3)

    def corner(row: int, column: int) -> NDArray[np.int64]:
        pixel: NDArray[np.int64] = image[LABELS + row * CELL + 4, LABELS + column * CELL + 4]
        return pixel

    assert bluish(corner(0, 0))
    assert reddish(corner(1, 2))
    assert corner(1, 3)[2] > corner(1, 2)[2] + 50  # paler
    assert min(*corner(9, 9), *corner(4, 5)) > 250  # no image is of that class


def test_wrong_images_stand_in_dark_ink_three_times_as_large() -> None:
    drawn = np.zeros((28, 28), dtype=np.uint8)
    drawn[4:10, 5:20] = 255
    wrong = [PredictedImage(picture=drawn, label=1, predicted=5, probability=0.98)] * 9
    image = pixels(wrong_picture(wrong, NAMES, "study, trial 3"))
    assert image.shape == (62 + 2 * (84 + 40 + 12), 8 * 96 + 12, 3)
    first = image[62 : 62 + 84, 12 : 12 + 84].mean(axis=2)
    assert (first[4 * 3 : 10 * 3, 5 * 3 : 20 * 3] < 10).all()
    assert (first[30:] > 245).all()
    assert reddish(image[62 + 84 : 62 + 124, 12:100]).any()  # what the model said


def test_without_a_wrong_image_the_picture_says_none() -> None:
    assert (pixels(wrong_picture([], NAMES, "study, trial 3"))[62:] < 100).any()


def test_a_recipe_is_a_study_file_of_the_same_configuration_with_nothing_to_search() -> None:
    file = loads(STUDY, source="here", name="shapes")
    params = {"learning_rate": 0.00437, "dim": 64, "num_blocks": 3}
    spec = file.suggest(FixedTrial(params))
    again = loads(recipe(file.study, 7, spec), source="there", name="other")
    assert (again.study.name, again.study.trials, again.study.pruner.name) == ("shapes-trial-7", 1, "none")
    assert again.space == {}
    assert again.middle().digest == spec.config.digest
    assert isinstance(again, SearchFile)
    assert isinstance(file, SearchFile)
    assert (again.data, again.train) == (file.data, file.train)
