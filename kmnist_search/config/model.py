"""The configuration of a net: a PatchMLP, or a net that is written layer by layer."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from kmnist_search.config.base import Config, Share, Size
from kmnist_search.config.layers import Axis, Line, Shape, Step, parse, steps
from kmnist_search.errors import ConfigError

NUM_CLASSES = 10


def _widths(value: Any) -> int | tuple[int, ...]:
    widths = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not widths or any(type(width) is not int or width < 1 for width in widths):
        raise ValueError("input should be a whole number above 0, or a list of them, one for each block")
    return value if isinstance(value, int) else widths


def _lines(value: Any) -> tuple[Line, ...]:
    lines = tuple(tuple(line) if isinstance(line, list) else line for line in value) if _is_list(value) else ()
    if not lines or not all(_is_line(line) for line in lines):
        raise ValueError(
            "input should be a list of layers, each a text such as 'linear features 128' or a list of them"
        )
    parse(lines)
    return lines


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _is_line(line: Any) -> bool:
    return isinstance(line, str) or (_is_list(line) and all(isinstance(part, str) for part in line))


#: One width for all blocks, or one for each block.
Widths = Annotated[int | tuple[int, ...], BeforeValidator(_widths)]
Layers = Annotated[tuple[Line, ...], BeforeValidator(_lines)]


class PatchesConfig(Config):
    """How an image is cut into patches, the tokens of a net."""

    image_size: Literal[28, 32] = 28
    patch_size: Size = 4

    @model_validator(mode="after")
    def _patches_fit(self) -> Self:
        if self.image_size % self.patch_size:
            fitting = [size for size in range(1, self.image_size + 1) if self.image_size % size == 0]
            raise ValueError(
                f"patch_size {self.patch_size} does not divide image_size {self.image_size}: use one of {fitting}"
            )
        return self

    @property
    def num_tokens(self) -> int:
        """Patches per image."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def num_pixels(self) -> int:
        """Pixels per patch."""
        return self.patch_size**2


#: The hyperparameters that may differ from block to block.
BLOCK_WIDTHS = ("token_width", "channel_width")


class PatchMLPConfig(PatchesConfig):
    """Shape of a PatchMLP: a stem over patches, blocks that mix tokens then channels, mean, classifier."""

    dim: Size = 128
    token_width: Widths = 64
    channel_width: Widths = 256
    num_blocks: Annotated[int, Field(ge=1, le=64)] = 4
    norm: Literal["layer", "batch", "none"] = "layer"
    activation: Literal["gelu", "relu"] = "gelu"
    skip: bool = True
    dropout: Share = 0.0
    drop_path: Share = 0.0

    @model_validator(mode="after")
    def _blocks_fit(self) -> Self:
        for name in BLOCK_WIDTHS:
            widths = getattr(self, name)
            if isinstance(widths, tuple) and len(widths) != self.num_blocks:
                raise ValueError(f"{name} lists {len(widths)} widths for num_blocks = {self.num_blocks}")
        if self.drop_path and not self.skip:
            raise ValueError("drop_path needs skip = true: without a skip connection, a dropped block has no output")
        return self

    @property
    def token_widths(self) -> tuple[int, ...]:
        """Hidden width of the token-mixing MLP, block by block."""
        return self.token_width if isinstance(self.token_width, tuple) else (self.token_width,) * self.num_blocks

    @property
    def channel_widths(self) -> tuple[int, ...]:
        """Hidden width of the channel-mixing MLP, block by block."""
        return self.channel_width if isinstance(self.channel_width, tuple) else (self.channel_width,) * self.num_blocks


class LayersConfig(PatchesConfig):
    """A net that is written layer by layer (see `layers.py`), for architectures other than the PatchMLP.

    `initialisation` "default" is that of torch's layers; "kaiming" draws the weights of linear layers from the uniform
    distribution for layers before a ReLU (He et al. 2015, arXiv:1502.01852).
    """

    layers: Layers
    initialisation: Literal["default", "kaiming"] = "default"

    @model_validator(mode="after")
    def _layers_fit(self) -> Self:
        self.steps()
        return self

    def steps(self) -> tuple[Step, ...]:
        """Return the layers before the mean, each with the shapes of its input and output."""
        return steps(parse(self.layers)[0], self._shape)

    @property
    def mean_axis(self) -> Axis:
        """The axis over which the mean before the classifier is taken."""
        return parse(self.layers)[1]

    @property
    def num_classified(self) -> int:
        """The number of inputs of the classifier."""
        last = self.steps()[-1].after if self.steps() else self._shape
        return last.along("features" if self.mean_axis == "tokens" else "tokens")

    @property
    def _shape(self) -> Shape:
        return Shape(tokens=self.num_tokens, features=self.num_pixels)


ModelConfig = PatchMLPConfig | LayersConfig


def model_kind(values: Any) -> Literal["layers", "patch_mlp"]:
    """Return the kind of model that the values describe: a list of layers, or a PatchMLP."""
    has_layers = "layers" in values if isinstance(values, Mapping) else isinstance(values, LayersConfig)
    return "layers" if has_layers else "patch_mlp"


#: The type of a field that holds a model's configuration.
AnyModelConfig = Annotated[
    Annotated[PatchMLPConfig, Tag("patch_mlp")] | Annotated[LayersConfig, Tag("layers")], Discriminator(model_kind)
]


def model_config(values: Mapping[str, Any]) -> ModelConfig:
    """Return the model that the values describe.

    Raises:
        ConfigError: the values do not fit together.
    """
    if model_kind(values) == "patch_mlp":
        return PatchMLPConfig(**values)
    if beside := [name for name in values if name not in LayersConfig.model_fields]:
        raise ConfigError(
            f"{', '.join(beside)} cannot be set together with layers, which define the whole net. Leave it out"
        )
    return LayersConfig(**values)
