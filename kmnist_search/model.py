"""The patch-MLP. Knows nothing of data, training or studies.

Shapes: B images of a batch, H = W pixels a side, N tokens (patches), P pixels a patch, D features (`dim`),
T token width, C channel width. Activations are tokens-first, (N, B, D): each layer of an MLP is then one matrix
product without a transpose, the token MLP on (N, B*D), the channel MLP on (N*B, D).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kmnist_search.config import NUM_CLASSES, ModelConfig

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu}


def patches(images_BHW: Tensor, patch_size: int) -> Tensor:
    """Cut (B, H, W) images into (N, B, P) patches, rows of patches first, pixels in reading order."""
    B, H, W = images_BHW.shape
    p = patch_size
    return images_BHW.reshape(B, H // p, p, W // p, p).permute(1, 3, 0, 2, 4).reshape(-1, B, p * p)


def dropout(x: Tensor, probability: float, generator: torch.Generator | None, shape: tuple[int, ...]) -> Tensor:
    """Zero `x` where a mask of `shape` (which broadcasts against `x`) says so, and scale up what is left.

    `torch.nn.Dropout` draws from the process's one generator; this draws from the training's own, so that trainings
    beside each other do not disturb one another and a resumed one draws what it would have drawn.
    """
    keep = torch.empty(shape, device=x.device, dtype=x.dtype).bernoulli_(1 - probability, generator=generator)
    return x * keep.div_(1 - probability)


class FeatureNorm(nn.Module):
    """Norm of (N, B, D) over the features (layer) or, feature by feature, over tokens and images (batch)."""

    def __init__(self, kind: str, dim: int) -> None:
        super().__init__()
        kinds = {"layer": nn.LayerNorm, "batch": nn.BatchNorm1d, "none": nn.Identity}
        self.norm = kinds[kind](dim)

    def forward(self, x_NBD: Tensor) -> Tensor:
        return self.norm(x_NBD.flatten(0, 1)).view_as(x_NBD)  # type: ignore[no-any-return]


class TokenMLP(nn.Module):
    """Two layers across the tokens, alike for every feature.

    Both weights are stored (N, T): N, say 49, is seldom a multiple of 8, and rows of T are aligned for the GPU.
    """

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.weight1_NT = nn.Parameter(torch.empty(config.num_tokens, width))
        self.bias1_T = nn.Parameter(torch.empty(width))
        self.weight2_NT = nn.Parameter(torch.empty(config.num_tokens, width))
        self.bias2_N = nn.Parameter(torch.empty(config.num_tokens))
        # What nn.Linear does: uniform within 1/sqrt(inputs), for weights and biases alike.
        for parameters, inputs in (
            ((self.weight1_NT, self.bias1_T), config.num_tokens),
            ((self.weight2_NT, self.bias2_N), width),
        ):
            for parameter in parameters:
                nn.init.uniform_(parameter, -1 / math.sqrt(inputs), 1 / math.sqrt(inputs))

    def forward(self, x_NBD: Tensor, generator: torch.Generator | None) -> Tensor:
        x_NX = x_NBD.flatten(1)
        hidden_TX = torch.addmm(self.bias1_T.unsqueeze(1), self.weight1_NT.T, x_NX)
        hidden_TX = ACTIVATIONS[self.config.activation](hidden_TX)
        if self.training and self.config.dropout:
            hidden_TX = dropout(hidden_TX, self.config.dropout, generator, tuple(hidden_TX.shape))
        return torch.addmm(self.bias2_N.unsqueeze(1), self.weight2_NT, hidden_TX).view_as(x_NBD)


class ChannelMLP(nn.Module):
    """Two layers across the features, alike for every token."""

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.linear1 = nn.Linear(config.dim, width)
        self.linear2 = nn.Linear(width, config.dim)

    def forward(self, x_NBD: Tensor, generator: torch.Generator | None) -> Tensor:
        hidden_NBC = ACTIVATIONS[self.config.activation](self.linear1(x_NBD))
        if self.training and self.config.dropout:
            hidden_NBC = dropout(hidden_NBC, self.config.dropout, generator, tuple(hidden_NBC.shape))
        return self.linear2(hidden_NBC)  # type: ignore[no-any-return]


class Block(nn.Module):
    """Token mixing, then channel mixing, each after a norm and beside a skip.

    `drop_path` is this block's probability that an image takes the skip alone (stochastic depth, Huang et al. 2016).
    """

    def __init__(self, config: ModelConfig, token_width: int, channel_width: int, drop_path: float) -> None:
        super().__init__()
        self.skip = config.skip
        self.drop_path = drop_path
        self.norm1 = FeatureNorm(config.norm, config.dim)
        self.token_mlp = TokenMLP(config, token_width)
        self.norm2 = FeatureNorm(config.norm, config.dim)
        self.channel_mlp = ChannelMLP(config, channel_width)

    def forward(self, x_NBD: Tensor, generator: torch.Generator | None) -> Tensor:
        x_NBD = self._beside_skip(x_NBD, self.token_mlp(self.norm1(x_NBD), generator), generator)
        return self._beside_skip(x_NBD, self.channel_mlp(self.norm2(x_NBD), generator), generator)

    def _beside_skip(self, x_NBD: Tensor, y_NBD: Tensor, generator: torch.Generator | None) -> Tensor:
        if not self.skip:
            return y_NBD
        if self.training and self.drop_path:
            y_NBD = dropout(y_NBD, self.drop_path, generator, (1, y_NBD.shape[1], 1))
        return x_NBD + y_NBD


class PatchMLP(nn.Module):
    """MLP-Mixer (Tolstikhin et al. 2021, arXiv:2105.01601) for grey images, with the options of `ModelConfig`.

    The drop path grows linearly from 0 in the first block to `config.drop_path` in the last.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = nn.Linear(config.patch_size**2, config.dim)
        depth = max(config.num_blocks - 1, 1)
        self.blocks = nn.ModuleList(
            Block(config, token_width, channel_width, config.drop_path * number / depth)
            for number, (token_width, channel_width) in enumerate(
                zip(config.token_widths, config.channel_widths, strict=True)
            )
        )
        self.norm = FeatureNorm(config.norm, config.dim)
        self.classifier = nn.Linear(config.dim, NUM_CLASSES)

    def forward(self, images_BHW: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the (B, 10) logits of normalised (B, H, W) images.

        `generator` draws the dropout and drop-path masks in training mode; None is the process's own.
        """
        x_NBD = self.stem(patches(images_BHW, self.config.patch_size))
        for block in self.blocks:
            x_NBD = block(x_NBD, generator)
        return self.classifier(self.norm(x_NBD).mean(dim=0))  # type: ignore[no-any-return]


def build(config: ModelConfig, seed: int) -> PatchMLP:
    """Return a PatchMLP on the CPU whose weights depend on `config` and `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PatchMLP(config)
