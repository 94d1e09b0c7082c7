"""A classifier: a net with its normalisation, from pixels to logits."""

from torch import Tensor, nn

from kmnist_search.data.resize import resized
from kmnist_search.model import Model


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
