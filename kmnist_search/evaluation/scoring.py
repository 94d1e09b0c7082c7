"""The figures of one model on the test set: accuracy, confusion, figures per class, calibration."""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from kmnist_search.evaluation.metrics import CalibrationBin, ClassFigures, KeptModel

CALIBRATION_BINS = 10


def score(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], *, class_names: Sequence[str], seed: int
) -> KeptModel:
    """Return the figures of one model.

    Args:
        probabilities: (T, classes).
        labels: (T,) true labels.
        class_names: class names by label.
        seed: seed of the model.
    """
    predicted = probabilities.argmax(axis=1)
    every = np.arange(len(class_names))
    calibration = _calibration(probabilities.max(axis=1), predicted == labels)
    return KeptModel(
        seed=seed,
        test_accuracy=int((predicted == labels).sum()) / len(labels),
        confusion=tuple(tuple(row) for row in confusion_matrix(labels, predicted, labels=every).tolist()),
        classes=_classes(labels, predicted, class_names),
        calibration=calibration,
        calibration_error=_calibration_error(calibration),
    )


def _classes(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], class_names: Sequence[str]
) -> tuple[ClassFigures, ...]:
    every = np.arange(len(class_names))
    columns = precision_recall_fscore_support(labels, predicted, labels=every, zero_division=0)
    return tuple(
        ClassFigures(
            label=label,
            name=name,
            precision=float(precision) if (predicted == label).any() else None,
            recall=float(recall),
            f1=float(f1),
            images=int(images),
        )
        for label, (name, precision, recall, f1, images) in enumerate(zip(class_names, *columns, strict=True))
    )


def _calibration(confidences: NDArray[np.float32], hits: NDArray[np.bool_]) -> tuple[CalibrationBin, ...]:
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    bins = []
    for low, high in itertools.pairwise(edges):
        inside = (confidences > low) & (confidences <= high)
        count = int(inside.sum())
        bins.append(
            CalibrationBin(
                low=round(float(low), 10),
                high=round(float(high), 10),
                images=count,
                confidence=min(float(confidences[inside].mean(dtype=np.float64)), 1.0) if count else None,
                accuracy=int(hits[inside].sum()) / count if count else None,
            )
        )
    return tuple(bins)


def _calibration_error(bins: Sequence[CalibrationBin]) -> float:
    """Return the expected calibration error (Guo et al. 2017, arXiv:1706.04599)."""
    total = sum(each.images for each in bins)
    return sum(each.images / total * abs((each.accuracy or 0.0) - (each.confidence or 0.0)) for each in bins)
