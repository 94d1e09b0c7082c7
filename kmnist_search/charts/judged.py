"""Predictions for labelled images, and the most confident right and wrong ones.

Shapes: N images of 28 x 28 pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False, kw_only=True)
class Judged:
    """Images and a model's predictions for them.

    Attributes:
        images: (N, 28, 28), 0 = background.
        labels: (N,), the true classes.
        probabilities: (N, 10), predicted by the model.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(N,), the most probable class of each."""
        predicted: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return predicted


@dataclass(frozen=True, eq=False, kw_only=True)
class JudgedImage:
    """An image with its true class, its predicted class and the probability of that class."""

    picture: NDArray[np.uint8]
    label: int
    predicted: int
    probability: float


def most_confidently_wrong(judged: Judged, number: int) -> Sequence[JudgedImage]:
    """Return at most `number` wrong predictions, the most confident first."""
    wrong = _by_confidence(judged, judged.predicted != judged.labels)
    return [_judged_image(judged, index) for index in wrong[:number]]


def most_confidently_right(judged: Judged) -> Sequence[JudgedImage]:
    """Return the most confident right prediction of each class that has one, by class."""
    right = _by_confidence(judged, judged.predicted == judged.labels)
    labels, first = np.unique(judged.labels[right], return_index=True)
    return [_judged_image(judged, index) for index in right[first][np.argsort(labels)]]


def confusion(judged: Judged) -> NDArray[np.int64]:
    """Return the number of images by true (row) and predicted class (column)."""
    classes = judged.probabilities.shape[1]
    pairs = judged.labels * classes + judged.predicted
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def _by_confidence(judged: Judged, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
    indices = np.flatnonzero(chosen)
    confidence = judged.probabilities[indices].max(axis=1)
    return indices[np.argsort(-confidence, kind="stable")]


def _judged_image(judged: Judged, index: np.int64) -> JudgedImage:
    probabilities = judged.probabilities[index]
    return JudgedImage(
        picture=judged.images[index],
        label=int(judged.labels[index]),
        predicted=int(probabilities.argmax()),
        probability=float(probabilities.max()),
    )
