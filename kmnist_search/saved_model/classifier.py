"""A net with its normalisation: pixels in, logits out. Knows nothing of files and of what the classes mean."""

from torch import Tensor, nn

from kmnist_search.data.resize import resized
from kmnist_search.model import Model


class Classifier(nn.Module):
    """What a training ends with, for use: takes pixels as they are in an image file.

    `mean` and `std` are those of the training pixels, as shares of 255.
    """

    def __init__(self, model: Model, *, mean: float, std: float) -> None:
        super().__init__()
        self.model = model
        self.mean, self.std = mean, std

    def forward(self, images_BHW: Tensor) -> Tensor:
        """Return the (B, 10) logits of images with pixels from 0, the background, to 255, uint8 or float.

        H = W is 28; images that already are of the model's own size are taken as they are.
        """
        size = self.model.config.image_size
        if images_BHW.shape[-1] != size:
            images_BHW = resized(images_BHW, size)
        return self.model((images_BHW.float() / 255 - self.mean) / self.std)  # type: ignore[no-any-return]
