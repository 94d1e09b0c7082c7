"""Parser of nets that are written layer by layer, as lines of text, and the shape after each layer.

A list of layers over two named axes, tokens and features, stands between the patches of an image and the classifier:

    linear AXIS WIDTH   a linear layer along the axis, with WIDTH outputs
    batch_norm AXIS     a mean and a standard deviation for each index of the axis, over the rest of the batch
    relu                or gelu
    dropout SHARE
    mean AXIS           always the last layer: the classifier gets the other axis

A list within the list is a residual branch: its output is added to its input.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

Axis = Literal["tokens", "features"]
Kind = Literal["relu", "gelu"]

#: A line, or the lines of a branch.
Line = str | tuple[str, ...]


@dataclass(frozen=True)
class Linear:
    """A linear layer with bias along an axis."""

    axis: Axis
    width: int


@dataclass(frozen=True)
class BatchNorm:
    """A batch norm (Ioffe & Szegedy 2015, arXiv:1502.03167) whose channels are the indices of an axis."""

    axis: Axis


@dataclass(frozen=True)
class Activation:
    """An activation function."""

    kind: Kind


@dataclass(frozen=True)
class Dropout:
    """Dropout: in training, sets a share of the numbers to 0 and scales the others up."""

    share: float


@dataclass(frozen=True)
class Branch:
    """Layers with a skip connection around them."""

    layers: tuple["Simple", ...]


Simple = Linear | BatchNorm | Activation | Dropout


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The number of tokens, and of features per token."""

    tokens: int
    features: int

    @property
    def size(self) -> int:
        return self.tokens * self.features

    def along(self, axis: Axis) -> int:
        return self.tokens if axis == "tokens" else self.features


@dataclass(frozen=True, kw_only=True)
class Step:
    """A layer with the shapes of its input and output. A branch also has the steps `inside` it."""

    layer: Simple | Branch
    before: Shape
    after: Shape
    inside: tuple["Step", ...] = ()


def parse(lines: Sequence[Line]) -> tuple[tuple[Simple | Branch, ...], Axis]:
    """Return the layers before the final mean, and the axis of the mean.

    Raises:
        ValueError: a line is not understood, or there is not exactly one mean, at the end.
    """
    *before, last = lines
    match last.split() if isinstance(last, str) else []:
        case ["mean", ("tokens" | "features") as axis]:
            return tuple(map(_layer, before)), axis
    raise _not_a_layer(last)


def steps(layers: Sequence[Simple | Branch], shape: Shape) -> tuple[Step, ...]:
    """Return each layer with its shapes; `shape` is the input of the first.

    Raises:
        ValueError: a branch changes the shape.
    """
    made: list[Step] = []
    for layer in layers:
        inside: tuple[Step, ...] = ()
        after = shape
        if isinstance(layer, Branch):
            inside = steps(layer.layers, shape)
            _check_sum(shape, inside[-1].after)
        elif isinstance(layer, Linear):
            after = replace(shape, **{layer.axis: layer.width})
        made.append(Step(layer=layer, before=shape, after=after, inside=inside))
        shape = after
    return tuple(made)


def simple_steps(steps: Sequence[Step]) -> Iterator[Step]:
    """Yield the steps; for a branch, the steps inside it."""
    for step in steps:
        yield from step.inside or (step,)


def _check_sum(begin: Shape, end: Shape) -> None:
    if begin != end:
        raise ValueError(
            f"the input of a branch is {begin.tokens} tokens of {begin.features} features, its output {end.tokens} of "
            f"{end.features}: the output cannot be added to the input"
        )


def _layer(line: Line) -> Simple | Branch:
    return Branch(tuple(map(_simple, line))) if line and isinstance(line, tuple) else _simple(line)


def _simple(line: Line) -> Simple:
    match line.split() if isinstance(line, str) else []:
        case ["linear", ("tokens" | "features") as axis, width] if width.isdecimal() and int(width) > 0:
            return Linear(axis, int(width))
        case ["batch_norm", ("tokens" | "features") as axis]:
            return BatchNorm(axis)
        case [("relu" | "gelu") as kind]:
            return Activation(kind)
        case ["dropout", share] if _is_share(share):
            return Dropout(float(share))
    raise _not_a_layer(line)


def _not_a_layer(line: Line) -> ValueError:
    axes = " or ".join(get_args(Axis))
    kinds = ", ".join(f"{kind!r}" for kind in get_args(Kind))
    return ValueError(
        f"{line!r} is not a layer here. Write 'linear AXIS WIDTH', 'batch_norm AXIS', {kinds}, or 'dropout SHARE' with "
        f"a share from 0 to below 1, and 'mean AXIS' as the last layer only, where AXIS is {axes}"
    )


def _is_share(text: str) -> bool:
    try:
        return 0 <= float(text) < 1
    except ValueError:
        return False
