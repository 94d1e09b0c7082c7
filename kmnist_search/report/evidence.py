"""The data of a report's model half.

Shapes: S samples of each class; pictures are 28 x 28.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kmnist_search.charts.judged import Judged
from kmnist_search.evaluation.metrics import Metrics


@dataclass(frozen=True, eq=False, kw_only=True)
class Predictions:
    """One model's predictions for the test images.

    Attributes:
        probabilities: (T, 10).
        images: (T, 28, 28), 0 = background.
        labels: (T,).
    """

    probabilities: NDArray[np.float32]
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True, eq=False, kw_only=True)
class Evidence:
    """The figures of the final models, and the kept model's predictions.

    Attributes:
        metrics: the figures.
        test: the test images, with the kept model's predictions.
        samples: (10, S, 28, 28), training images of each class.
        class_counts: (10,), number of training images of each class.
    """

    metrics: Metrics
    test: Judged
    samples: NDArray[np.uint8]
    class_counts: NDArray[np.int64]
