"""A net that is written layer by layer.

Shapes: B images of a batch, N tokens, D features; N and D change from layer to layer. Activations are tokens-first,
(N, B, D), as in a PatchMLP.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from kmnist_search.config import NUM_CLASSES, LayersConfig
from kmnist_search.config.layers import Activation, BatchNorm, Branch, Dropout, Linear, Step, simple_steps
from kmnist_search.model.parts import Noise, dropout_masks, patches

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


class TokenLinear(nn.Linear):
    """A linear layer along the tokens, shared by all features: (N, B, D) to (width, B, D)."""

    def forward(self, x_NBD: Tensor) -> Tensor:
        y_MX = torch.addmm(self.bias.unsqueeze(1), self.weight, x_NBD.flatten(1))
        return y_MX.view(-1, *x_NBD.shape[1:])


class TokenBatchNorm(nn.BatchNorm1d):
    """A batch norm with a mean and a standard deviation for each token, over images and features."""

    def forward(self, x_NBD: Tensor) -> Tensor:
        return super().forward(x_NBD.transpose(0, 1)).transpose(0, 1)


class FeatureBatchNorm(nn.BatchNorm1d):
    """A batch norm with a mean and a standard deviation for each feature, over images and tokens."""

    def forward(self, x_NBD: Tensor) -> Tensor:
        return super().forward(x_NBD.flatten(0, 1)).view_as(x_NBD)


class MaskedDropout(nn.Module):
    """Dropout with the next of the masks that were drawn before; without masks it changes nothing."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def extra_repr(self) -> str:
        return f"share={self.share}"

    def forward(self, x_NBD: Tensor, masks: Iterator[Tensor]) -> Tensor:
        mask_NBD = next(masks, None)
        return x_NBD if mask_NBD is None else x_NBD * mask_NBD


class LayerList(nn.ModuleList):
    """Layers one after the other. A list within the list is a residual branch."""

    def __init__(self, steps: Sequence[Step]) -> None:
        super().__init__(LayerList(step.inside) if step.inside else _layer(step) for step in steps)

    def forward(self, x_NBD: Tensor, masks: Iterator[Tensor]) -> Tensor:
        for layer in self:
            match layer:
                case LayerList():
                    x_NBD = x_NBD + layer(x_NBD, masks)
                case MaskedDropout():
                    x_NBD = layer(x_NBD, masks)
                case _:
                    x_NBD = layer(x_NBD)
        return x_NBD


class LayeredMLP(nn.Module):
    """Patches, the layers of a `LayersConfig`, a mean over one of the two axes, and a classifier on the other."""

    def __init__(self, config: LayersConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = LayerList(config.steps())
        self.classifier = nn.Linear(config.num_classified, NUM_CLASSES)
        if config.initialisation == "kaiming":
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")

    def draw(self, batch_size: int, dtype: torch.dtype, generator: torch.Generator | None = None) -> Noise:
        """Draw the dropout masks for a batch; None is torch's global generator."""
        shapes = (
            ((step.before.tokens, batch_size, step.before.features), step.layer.share)
            for step in simple_steps(self.config.steps())
            if isinstance(step.layer, Dropout)
        )
        return Noise(masks=dropout_masks(shapes, dtype, self.classifier.weight.device, generator))

    def forward(self, images_BHW: Tensor, noise: Noise | None = None) -> Tensor:
        """Return the (B, 10) logits of normalised (B, H, W) images; `noise` is for training, see `draw`."""
        masks = iter(noise.masks if noise else ())
        x_NBD = self.layers(patches(images_BHW, self.config.patch_size), masks)
        means = x_NBD.mean(dim=0) if self.config.mean_axis == "tokens" else x_NBD.mean(dim=2).T
        return self.classifier(means)  # type: ignore[no-any-return]


def _layer(step: Step) -> nn.Module:
    match step.layer:
        case Linear(axis=axis, width=width):
            return (TokenLinear if axis == "tokens" else nn.Linear)(step.before.along(axis), width)
        case BatchNorm(axis=axis):
            return (TokenBatchNorm if axis == "tokens" else FeatureBatchNorm)(step.before.along(axis))
        case Activation(kind=kind):
            return ACTIVATIONS[kind]()
        case Dropout(share=share):
            return MaskedDropout(share)
        case Branch():
            raise AssertionError("a branch has steps inside")
