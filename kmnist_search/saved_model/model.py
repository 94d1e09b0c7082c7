"""A saved model in use: images in, characters with their probabilities out."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from kmnist_search.config import NUM_CLASSES
from kmnist_search.data.catalog import ClassName
from kmnist_search.data.resize import resized
from kmnist_search.errors import ImageError
from kmnist_search.model import Model
from kmnist_search.saved_model.info import ModelInfo
from kmnist_search.saved_model.preprocessing import preprocess

BATCH_SIZE = 1000


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The most probable class of an image: its label 0 to 9, its name and its probability."""

    label: int
    name: ClassName
    probability: float


class Classifier(nn.Module):
    """A trained net that takes pixels as they are in an image file.

    Args:
        model: the net.
        mean: mean of the training pixels, as a share of 255.
        std: their standard deviation, as a share of 255.
    """

    def __init__(self, model: Model, *, mean: float, std: float) -> None:
        super().__init__()
        self.model = model
        self.mean, self.std = mean, std

    def forward(self, images_BHW: Tensor) -> Tensor:
        """Return the (B, 10) logits of (B, H, W) images, uint8 or float, with pixels from 0 (background) to 255.

        Images that are not of the model's own size are scaled to it.
        """
        size = self.model.config.image_size
        if images_BHW.shape[-1] != size:
            images_BHW = resized(images_BHW, size)
        return self.model((images_BHW.float() / 255 - self.mean) / self.std)  # type: ignore[no-any-return]


class SavedModel:
    """A trained classifier on the CPU, in evaluation mode; `load_model` reads one.

    Attributes:
        info: data set, classes, net, configuration and seed.
        classifier: the net as a module of torch, which takes pixels as they are.
    """

    def __init__(self, *, info: ModelInfo, classifier: Classifier) -> None:
        self.info = info
        self.classifier = classifier.cpu().eval()

    def __repr__(self) -> str:
        parameters = sum(parameter.numel() for parameter in self.classifier.parameters())
        return f"<SavedModel for {self.info.dataset}: {parameters:,} parameters, recipe {self.info.recipe_digest}>"

    @torch.inference_mode()
    def probabilities(self, images: Tensor | NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the (B, 10) probabilities of uint8 (B, 28, 28) images, 0 = background; each row sums to 1.

        Raises:
            ValueError: the images are of another shape or type.
        """
        images_BHW = torch.as_tensor(images)
        if images_BHW.dtype != torch.uint8 or images_BHW.shape[1:] != (28, 28):
            kind = str(images_BHW.dtype).removeprefix("torch.")
            raise ValueError(f"images must be uint8 (B, 28, 28), got {kind} {tuple(images_BHW.shape)}")
        found = np.empty((len(images_BHW), NUM_CLASSES), np.float32)
        for start in range(0, len(images_BHW), BATCH_SIZE):
            batch = images_BHW[start : start + BATCH_SIZE].cpu()
            found[start : start + BATCH_SIZE] = self.classifier(batch).softmax(dim=1).numpy()
        return found

    def predict(
        self, images: Iterable[Path | str | Image.Image] | Path | str | Image.Image | Tensor | NDArray[np.uint8]
    ) -> list[Prediction]:
        """Return a prediction for each image.

        Args:
            images: paths of PNG or JPEG files, or images of Pillow, one or several, which are prepared by `preprocess`;
                or uint8 (B, 28, 28) pixels as in KMNIST, 0 = background, which are taken as they are.

        Raises:
            ImageError: some cannot be read or are empty; the message names each of them.
            ValueError: pixels are of another shape or type.
        """
        if isinstance(images, np.ndarray | Tensor):
            return self._named(images)
        if isinstance(images, str | Path | Image.Image):
            images = [images]
        prepared, problems = [], []
        for image in images:
            try:
                prepared.append(preprocess(image))
            except ImageError as error:
                problems.append(str(error))
        if problems:
            raise ImageError("\n".join(problems))
        return self._named(np.stack(prepared)) if prepared else []

    def _named(self, images: Tensor | NDArray[np.uint8]) -> list[Prediction]:
        """Return a prediction for each of uint8 (B, 28, 28) images, 0 = background."""
        probabilities = self.probabilities(images)
        labels = probabilities.argmax(axis=1)
        return [
            Prediction(label=int(label), name=self.info.classes[label], probability=float(row[label]))
            for label, row in zip(labels, probabilities, strict=True)
        ]
