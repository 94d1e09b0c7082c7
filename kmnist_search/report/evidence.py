"""What the model half of a report is drawn from. Knows not how it came about.

Shapes: T test images, S samples of each class; pictures are 28 x 28.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kmnist_search.metrics import Metrics


@dataclass(frozen=True, eq=False, kw_only=True)
class Evidence:
    """The figures of the final models, and what the kept one made of the test images.

    Attributes:
        metrics: the figures.
        probabilities: (T, 10), the kept model's.
        test_images: (T, 28, 28), 0 = background.
        test_labels: (T,).
        samples: (10, S, 28, 28), training images of each class.
        class_counts: (10,), training images of each class.
    """

    metrics: Metrics
    probabilities: NDArray[np.float32]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    samples: NDArray[np.uint8]
    class_counts: NDArray[np.int64]


@dataclass(frozen=True, eq=False, kw_only=True)
class Prediction:
    """One test image, what it shows, and what the kept model took it for with which probability."""

    picture: NDArray[np.uint8]
    label: int
    predicted: int
    probability: float


def most_confidently_wrong(evidence: Evidence, number: int) -> Sequence[Prediction]:
    """Return at most `number` wrong predictions, the most confident first."""
    wrong = _by_confidence(evidence, evidence.probabilities.argmax(axis=1) != evidence.test_labels)
    return [_prediction(evidence, index) for index in wrong[:number]]


def most_confidently_right(evidence: Evidence) -> Sequence[Prediction]:
    """Return the most confident right prediction of each class that has one, by class."""
    right = _by_confidence(evidence, evidence.probabilities.argmax(axis=1) == evidence.test_labels)
    labels, first = np.unique(evidence.test_labels[right], return_index=True)
    return [_prediction(evidence, index) for index in right[first][np.argsort(labels)]]


def _by_confidence(evidence: Evidence, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
    indices = np.flatnonzero(chosen)
    confidence = evidence.probabilities[indices].max(axis=1)
    return indices[np.argsort(-confidence, kind="stable")]


def _prediction(evidence: Evidence, index: np.int64) -> Prediction:
    probabilities = evidence.probabilities[index]
    return Prediction(
        picture=evidence.test_images[index],
        label=int(evidence.test_labels[index]),
        predicted=int(probabilities.argmax()),
        probability=float(probabilities.max()),
    )
