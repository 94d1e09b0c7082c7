"""The layout of all parameters of a PatchMLP in one flat buffer, so that one kernel can process all of them.

Legend: S replicas, N tokens, D features, P pixels per patch, T token width, C channel width. A buffer holds the
matrices first, then the vectors; vectors whose gradients are summed from partial sums come last.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from math import prod

import torch
from torch import Tensor

from kmnist_search.config import PatchMLPConfig
from kmnist_search.model.patch_mlp import PatchMLP

#: Matrices begin at multiples of this many elements, addresses that matrix units read fastest.
ALIGNMENT = 64
#: The number of padded logits. Pixels of a patch are padded to a multiple of 8, for the same reason.
PADDED_CLASSES = 16


@dataclass(frozen=True, kw_only=True)
class Segment:
    """The place of one parameter in a flat buffer: its name in the model, its padded shape, and its first element."""

    name: str
    shape: tuple[int, ...]
    begin: int

    @property
    def end(self) -> int:
        return self.begin + prod(self.shape)

    def view(self, buffer_SX: Tensor) -> Tensor:
        """Return the parameter of each replica as a view of a buffer, (S, *shape)."""
        return buffer_SX[:, self.begin : self.end].view(-1, *self.shape)


class FlatLayout:
    """The flat buffer of one architecture.

    Attributes:
        matrices: segments of the buffer's first part, by name.
        vectors: segments of the buffer's second part, by name; they count from the beginning of that part.
        num_matrix: elements of the first part.
        num_vector: elements of the second part.
        num_single: the first elements of the second part, whose gradients are not made of partial sums: the token MLPs'
            second biases, block by block, and the classifier's bias.
    """

    def __init__(self, config: PatchMLPConfig) -> None:
        self.config = config
        self.padded_pixels = -(-(config.patch_size**2) // 8) * 8
        self.matrices, self.num_matrix = _placed(self._matrix_shapes(), ALIGNMENT)
        self.vectors, num_vector = _placed(self._vector_shapes(), 1)
        self.num_vector = -(-num_vector // ALIGNMENT) * ALIGNMENT
        self.num_single = config.num_blocks * config.num_tokens + PADDED_CLASSES

    @property
    def size(self) -> int:
        return self.num_matrix + self.num_vector

    def _matrix_shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        D, N = self.config.dim, self.config.num_tokens
        yield "stem.weight", (D, self.padded_pixels)
        for number, (T, C) in enumerate(self._widths()):
            block = f"blocks.{number}"
            yield f"{block}.token_mlp.weight1_NT", (N, T)
            yield f"{block}.token_mlp.weight2_NT", (N, T)
            yield f"{block}.channel_mlp.linear1.weight", (C, D)
            yield f"{block}.channel_mlp.linear2.weight", (D, C)
        yield "classifier.weight", (PADDED_CLASSES, D)

    def _vector_shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        D, N, has_norm = self.config.dim, self.config.num_tokens, self.config.norm != "none"
        for number in range(self.config.num_blocks):
            yield f"blocks.{number}.token_mlp.bias2_N", (N,)
        yield "classifier.bias", (PADDED_CLASSES,)
        yield "stem.bias", (D,)
        for number, (T, C) in enumerate(self._widths()):
            block = f"blocks.{number}"
            yield f"{block}.token_mlp.bias1_T", (T,)
            yield f"{block}.channel_mlp.linear1.bias", (C,)
            yield f"{block}.channel_mlp.linear2.bias", (D,)
            if has_norm:
                for norm in ("norm1", "norm2"):
                    yield f"{block}.{norm}.norm.weight", (D,)
                    yield f"{block}.{norm}.norm.bias", (D,)
        if has_norm:
            yield "norm.norm.weight", (D,)
            yield "norm.norm.bias", (D,)

    def _widths(self) -> Iterator[tuple[int, int]]:
        return zip(self.config.token_widths, self.config.channel_widths, strict=True)

    def flattened(self, net: PatchMLP) -> Tensor:
        """Return the parameters of a model as one row, with 0 as padding."""
        row_X = torch.zeros(1, self.size)
        weights = net.state_dict()
        for part_SX, segments in self._parts(row_X):
            for segment in segments.values():
                _corner(segment.view(part_SX)[0], weights[segment.name].shape).copy_(weights[segment.name])
        return row_X[0]

    def unflattened(self, row_X: Tensor) -> PatchMLP:
        """Return a model on the CPU with the parameters of one row."""
        net = PatchMLP(self.config)
        weights = net.state_dict()
        for part_SX, segments in self._parts(row_X.detach().float().cpu().unsqueeze(0)):
            for segment in segments.values():
                weights[segment.name] = _corner(segment.view(part_SX)[0], weights[segment.name].shape).clone()
        net.load_state_dict(weights)
        return net

    def _parts(self, buffer_SX: Tensor) -> Iterator[tuple[Tensor, dict[str, Segment]]]:
        yield buffer_SX[:, : self.num_matrix], self.matrices
        yield buffer_SX[:, self.num_matrix :], self.vectors


def _placed(shapes: Iterator[tuple[str, tuple[int, ...]]], alignment: int) -> tuple[dict[str, Segment], int]:
    """Return consecutive segments for the shapes, each at a multiple of `alignment`, and the end of the last."""
    named = list(shapes)
    sizes = (-(-prod(shape) // alignment) * alignment for _, shape in named)
    *begins, end = accumulate(sizes, initial=0)
    slots = {
        name: Segment(name=name, shape=shape, begin=begin) for (name, shape), begin in zip(named, begins, strict=True)
    }
    return slots, end


def _corner(padded: Tensor, shape: torch.Size) -> Tensor:
    return padded[tuple(slice(size) for size in shape)]
