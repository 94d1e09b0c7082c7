"""What a PatchMLP costs, from its configuration alone. Knows nothing of torch: no model is built."""

from kmnist_search.config import NUM_CLASSES, ModelConfig


def num_parameters(config: ModelConfig) -> int:
    """Return the number of trained weights."""
    D, N, P = config.dim, config.num_tokens, config.patch_size**2
    norm = 0 if config.norm == "none" else 2 * D
    blocks = sum(
        norm + (2 * N * T + T + N) + norm + (2 * D * C + C + D)
        for T, C in zip(config.token_widths, config.channel_widths, strict=True)
    )
    return (P * D + D) + blocks + norm + (D * NUM_CLASSES + NUM_CLASSES)


def flops_per_image(config: ModelConfig) -> int:
    """Return the floating-point operations of one image's forward pass.

    Counts the matrix products, a multiply-add as two operations; a training step takes three times as many.
    """
    D, N, P = config.dim, config.num_tokens, config.patch_size**2
    blocks = sum(2 * N * D * T + 2 * N * D * C for T, C in zip(config.token_widths, config.channel_widths, strict=True))
    return 2 * (N * P * D + blocks + D * NUM_CLASSES)
