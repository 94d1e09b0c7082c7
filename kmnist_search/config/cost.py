"""The number of parameters and of floating-point operations of a net, from its configuration alone."""

from kmnist_search.config import NUM_CLASSES, LayersConfig, ModelConfig, PatchMLPConfig
from kmnist_search.config.layers import BatchNorm, Linear, Step, simple_steps


def num_parameters(config: ModelConfig) -> int:
    """Return the number of trained parameters."""
    if isinstance(config, PatchMLPConfig):
        return _patch_mlp_parameters(config)
    return sum(map(_layer_parameters, simple_steps(config.steps()))) + (config.num_classified + 1) * NUM_CLASSES


def flops_per_image(config: ModelConfig) -> int:
    """Return the floating-point operations of the forward pass of one image.

    Counts matrix products only, a multiply-add as two operations. A training step takes three times as many.
    """
    if isinstance(config, LayersConfig):
        layers = sum(map(_layer_flops, simple_steps(config.steps())))
        return layers + 2 * config.num_classified * NUM_CLASSES
    D, N, P = config.dim, config.num_tokens, config.num_pixels
    blocks = sum(2 * N * D * T + 2 * N * D * C for T, C in zip(config.token_widths, config.channel_widths, strict=True))
    return 2 * (N * P * D + blocks + D * NUM_CLASSES)


def _patch_mlp_parameters(config: PatchMLPConfig) -> int:
    D, N, P = config.dim, config.num_tokens, config.num_pixels
    norm = 0 if config.norm == "none" else 2 * D
    blocks = sum(
        norm + (2 * N * T + T + N) + norm + (2 * D * C + C + D)
        for T, C in zip(config.token_widths, config.channel_widths, strict=True)
    )
    return (P * D + D) + blocks + norm + (D * NUM_CLASSES + NUM_CLASSES)


def _layer_parameters(step: Step) -> int:
    match step.layer:
        case Linear(axis=axis, width=width):
            return (step.before.along(axis) + 1) * width
        case BatchNorm(axis=axis):
            return 2 * step.before.along(axis)
    return 0


def _layer_flops(step: Step) -> int:
    return 2 * step.before.along(step.layer.axis) * step.after.size if isinstance(step.layer, Linear) else 0
