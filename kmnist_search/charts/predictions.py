"""Predictions for labelled images, and the most confident right and wrong ones.

Shapes: N images of 28 x 28 pixels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False, kw_only=True)
class PredictedImage:
    """An image with its true class, its predicted class and the probability of that class."""

    picture: NDArray[np.uint8]
    label: int
    predicted: int
    probability: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Predictions:
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

    def most_confidently_wrong(self, number: int) -> list[PredictedImage]:
        """Return at most `number` wrong predictions, the most confident first."""
        return self._images(self._by_confidence(self.predicted != self.labels)[:number])

    def most_confidently_right(self) -> list[PredictedImage]:
        """Return the most confident right prediction of each class that has one, by class."""
        right = self._by_confidence(self.predicted == self.labels)
        _, first = np.unique(self.labels[right], return_index=True)
        return self._images(right[first])

    def confusion(self) -> NDArray[np.int64]:
        """Return the number of images by true (row) and predicted class (column)."""
        classes = self.probabilities.shape[1]
        pairs = self.labels * classes + self.predicted
        return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)

    def _by_confidence(self, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        indices = np.flatnonzero(chosen)
        return indices[np.argsort(-self.probabilities[indices].max(axis=1), kind="stable")]

    def _images(self, indices: NDArray[np.int64]) -> list[PredictedImage]:
        return [
            PredictedImage(
                picture=self.images[index],
                label=int(self.labels[index]),
                predicted=int(self.probabilities[index].argmax()),
                probability=float(self.probabilities[index].max()),
            )
            for index in indices
        ]
