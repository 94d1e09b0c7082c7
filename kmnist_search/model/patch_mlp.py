"""The PatchMLP: an MLP-Mixer for small grey images.

Shapes: B images of a batch, H = W pixels a side, N tokens (patches), P pixels a patch, D features (`dim`),
T token width, C channel width. Activations are tokens-first, (N, B, D): each layer of an MLP is then one matrix
product without a transpose, the token MLP on (N, B*D), the channel MLP on (N*B, D).
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kmnist_search.config import NUM_CLASSES, PatchMLPConfig
from kmnist_search.model.parts import Noise, dropout_masks, patches

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu}


def drop_path_keeps(config: PatchMLPConfig, device: torch.device) -> Tensor:
    """Return the probability that a branch of each block is kept, (blocks, 1, 1).

    It falls linearly from 1 in the first block to 1 - `config.drop_path` in the last (stochastic depth, Huang et al.
    2016, arXiv:1603.09382).
    """
    return 1 - torch.linspace(0, config.drop_path, config.num_blocks, device=device)[:, None, None]


def drop_path_factors(keeps_K11: Tensor, batch_size: int, generator: torch.Generator | None) -> Tensor:
    """Draw the drop-path factors of each block's two branches, (blocks, 2, B): 0, or 1 / (probability of keeping).

    Draws for all blocks at once, because on a GPU each draw is a kernel.
    """
    shape = (len(keeps_K11), 2, batch_size)
    uniform_K2B = torch.rand(shape, generator=generator, device=keeps_K11.device)
    return (uniform_K2B < keeps_K11) / keeps_K11


def draw_noise(
    config: PatchMLPConfig,
    keeps_K11: Tensor,
    *,
    batch_size: int,
    dtype: torch.dtype,
    generator: torch.Generator | None,
) -> Noise:
    """Draw the drop-path factors and dropout masks for a batch, on the device of `keeps_K11`.

    The masks are two for each block, of the token MLP (T, B*D) and of the channel MLP (N*B, C).
    """
    device = keeps_K11.device
    factors_K2B = drop_path_factors(keeps_K11, batch_size, generator) if config.drop_path else None
    shapes = (
        (shape, config.dropout)
        for T, C in zip(config.token_widths, config.channel_widths, strict=True)
        for shape in ((T, batch_size * config.dim), (config.num_tokens * batch_size, C))
    )
    masks = dropout_masks(shapes, dtype, device, generator) if config.dropout else []
    return Noise(factors_K2B=factors_K2B, masks=masks)


class Norm(nn.Module):
    """Norm of (N, B, D) over the features (layer) or, feature by feature, over tokens and images (batch)."""

    def __init__(self, kind: str, dim: int) -> None:
        super().__init__()
        kinds = {"layer": nn.LayerNorm, "batch": nn.BatchNorm1d, "none": nn.Identity}
        self.norm = kinds[kind](dim)

    def forward(self, x_NBD: Tensor) -> Tensor:
        return self.norm(x_NBD.flatten(0, 1)).view_as(x_NBD)  # type: ignore[no-any-return]


class TokenMLP(nn.Module):
    """Two layers across the tokens, shared by all features.

    Both weights are stored as (N, T): N, such as 49, is rarely a multiple of 8; rows of T are aligned for the GPU.
    """

    def __init__(self, config: PatchMLPConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.weight1_NT = nn.Parameter(torch.empty(config.num_tokens, width))
        self.bias1_T = nn.Parameter(torch.empty(width))
        self.weight2_NT = nn.Parameter(torch.empty(config.num_tokens, width))
        self.bias2_N = nn.Parameter(torch.empty(config.num_tokens))
        # As nn.Linear: uniform within 1/sqrt(inputs), for weights and biases.
        for parameters, inputs in (
            ((self.weight1_NT, self.bias1_T), config.num_tokens),
            ((self.weight2_NT, self.bias2_N), width),
        ):
            for parameter in parameters:
                nn.init.uniform_(parameter, -1 / math.sqrt(inputs), 1 / math.sqrt(inputs))

    def forward(self, x_NBD: Tensor, mask_TX: Tensor | None) -> Tensor:
        x_NX = x_NBD.flatten(1)
        hidden_TX = torch.addmm(self.bias1_T.unsqueeze(1), self.weight1_NT.T, x_NX)
        hidden_TX = ACTIVATIONS[self.config.activation](hidden_TX)
        if mask_TX is not None:
            hidden_TX = hidden_TX * mask_TX
        return torch.addmm(self.bias2_N.unsqueeze(1), self.weight2_NT, hidden_TX).view_as(x_NBD)


class ChannelMLP(nn.Module):
    """Two layers across the features, shared by all tokens."""

    def __init__(self, config: PatchMLPConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.linear1 = nn.Linear(config.dim, width)
        self.linear2 = nn.Linear(width, config.dim)

    def forward(self, x_NBD: Tensor, mask_RC: Tensor | None) -> Tensor:
        hidden_NBC = ACTIVATIONS[self.config.activation](self.linear1(x_NBD))
        if mask_RC is not None:
            hidden_NBC = hidden_NBC * mask_RC.view_as(hidden_NBC)
        return self.linear2(hidden_NBC)  # type: ignore[no-any-return]


class Block(nn.Module):
    """Token mixing, then channel mixing, each after a norm and with a skip connection."""

    def __init__(self, config: PatchMLPConfig, token_width: int, channel_width: int) -> None:
        super().__init__()
        self.skip = config.skip
        self.norm1 = Norm(config.norm, config.dim)
        self.token_mlp = TokenMLP(config, token_width)
        self.norm2 = Norm(config.norm, config.dim)
        self.channel_mlp = ChannelMLP(config, channel_width)

    def forward(
        self, x_NBD: Tensor, masks: Sequence[Tensor | None] = (None, None), factors_2B: Tensor | None = None
    ) -> Tensor:
        x_NBD = self._residual(x_NBD, self.token_mlp(self.norm1(x_NBD), masks[0]), factors_2B, 0)
        return self._residual(x_NBD, self.channel_mlp(self.norm2(x_NBD), masks[1]), factors_2B, 1)

    def _residual(self, x_NBD: Tensor, y_NBD: Tensor, factors_2B: Tensor | None, branch: int) -> Tensor:
        if not self.skip:
            return y_NBD
        if factors_2B is not None:
            y_NBD = y_NBD * factors_2B[branch, :, None].to(y_NBD.dtype)
        return x_NBD + y_NBD


class PatchMLP(nn.Module):
    """MLP-Mixer (Tolstikhin et al. 2021, arXiv:2105.01601) for grey images, with the options of `PatchMLPConfig`."""

    def __init__(self, config: PatchMLPConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = nn.Linear(config.patch_size**2, config.dim)
        self.blocks = nn.ModuleList(
            Block(config, token_width, channel_width)
            for token_width, channel_width in zip(config.token_widths, config.channel_widths, strict=True)
        )
        self.norm = Norm(config.norm, config.dim)
        self.classifier = nn.Linear(config.dim, NUM_CLASSES)

    def draw(self, batch_size: int, dtype: torch.dtype, generator: torch.Generator | None = None) -> Noise:
        """Draw the drop-path factors and dropout masks for a batch; None is torch's global generator."""
        keeps_K11 = drop_path_keeps(self.config, self.stem.weight.device)
        return draw_noise(self.config, keeps_K11, batch_size=batch_size, dtype=dtype, generator=generator)

    def forward(self, images_BHW: Tensor, noise: Noise | None = None) -> Tensor:
        """Return the (B, 10) logits of normalised (B, H, W) images; `noise` is for training, see `draw`."""
        noise = noise or Noise()
        x_NBD = self.stem(patches(images_BHW, self.config.patch_size))
        for number, block in enumerate(self.blocks):
            masks = noise.masks[2 * number : 2 * number + 2] or (None, None)
            factors_2B = None if noise.factors_K2B is None else noise.factors_K2B[number]
            x_NBD = block(x_NBD, masks, factors_2B)
        return self.classifier(self.norm(x_NBD).mean(dim=0))  # type: ignore[no-any-return]
