"""How much memory a training takes, from its configuration and the sizes of its data alone. Knows nothing of torch.

An estimate, made before a device is touched; it errs on the side of too much.

Letters as in the model: B images of a batch, N tokens, D features, T token width, C channel width, P pixels a patch.
"""

from kmnist_search.config import NUM_CLASSES, LayersConfig, ModelConfig, TrialConfig, cost
from kmnist_search.config.layers import Dropout, simple_steps

GIB = 2**30
#: Images that are validated at once, at most: the most that any program takes.
VAL_BATCH_SIZE = 2500
FLOAT32, BFLOAT16 = 4, 2  # bytes
#: Float32 images that augmentation holds at once: the batch, grids of two coordinates a pixel, what it samples.
AUGMENTED_COPIES = 10
#: What a training on a GPU takes however small: a workspace of cuBLAS for its stream, 32 MiB on Hopper, one for the
#: capture, and blocks that the allocator rounds up. A guess from NVIDIA's documentation, not measured.
GPU_OVERHEAD = 128 * 2**20
#: The warm-up takes from the ordinary pool what the captured steps then take again from one of their own.
GRAPH_POOLS = 2


def memory_needed(
    config: TrialConfig, *, train_images: int, val_images: int, activation_bytes: int, on_gpu: bool
) -> int:
    """Return about how many bytes one training takes beside the images, which all share.

    Args:
        config: of the training.
        train_images: images of the training part.
        val_images: images of the validation part.
        activation_bytes: of a number in an activation, 2 in bfloat16 and 4 in float32.
        on_gpu: steps are captured as CUDA graphs, which have memory of their own.
    """
    batch, size = config.batch.batch_size, config.model.image_size
    saved = saved_numbers(config.model) * batch
    passing = _passing_numbers(config.model)
    step = (saved + 2 * passing * batch) * activation_bytes + AUGMENTED_COPIES * batch * size**2 * FLOAT32
    validated = min(val_images, VAL_BATCH_SIZE)
    validation = validated * (passing * activation_bytes + 2 * size**2 * FLOAT32)
    activations = max(step, validation) * (GRAPH_POOLS if on_gpu else 1)
    order = train_images * 8  # a position as int64
    own_images = (train_images + val_images) * size**2 if size != 28 else 0  # no copy that all share
    return _weights(config) + activations + order + own_images + (GPU_OVERHEAD if on_gpu else 0)


def saved_numbers(config: ModelConfig) -> int:
    """Return how many numbers of one image a forward pass keeps for the backward pass."""
    if isinstance(config, LayersConfig):
        # What each layer was given, and a mask as large beside each dropout.
        steps = list(simple_steps(config.steps()))
        masks = sum(step.before.size for step in steps if isinstance(step.layer, Dropout))
        return sum(step.before.size for step in steps) + masks + config.num_classified + NUM_CLASSES
    N, D, P = config.num_tokens, config.dim, config.patch_size**2
    # What a norm reads and what it returns; without one they are the same.
    normed = N * D * (1 if config.norm == "none" else 2)
    # The hidden numbers before and after the activation, of which ReLU needs only those after; with dropout those
    # before or after the activation, the mask, and what it leaves.
    hidden = 3 if config.dropout else 2 if config.activation == "gelu" else 1
    blocks = sum(
        2 * normed + hidden * (T * D + N * C) for T, C in zip(config.token_widths, config.channel_widths, strict=True)
    )
    return N * P + blocks + normed + D + NUM_CLASSES


def _passing_numbers(config: ModelConfig) -> int:
    """Return how many numbers of one image are there for a moment where the net is widest, or as their gradients."""
    if isinstance(config, LayersConfig):
        return 2 * max(step.before.size + step.after.size for step in simple_steps(config.steps()))
    N, D = config.num_tokens, config.dim
    widest = max(max(T * D, N * C) for T, C in zip(config.token_widths, config.channel_widths, strict=True))
    return 2 * N * D + 2 * widest


def _weights(config: TrialConfig) -> int:
    """Return the bytes of masters, gradients, moments and a moving average in float32, and of a bfloat16 copy."""
    moments = {"adamw": 2, "adam": 2, "sgd": 1 if config.optimizer.momentum else 0}[config.optimizer.optimizer]
    averages = 1 if config.optimizer.ema_decay else 0
    return cost.num_parameters(config.model) * ((2 + moments + averages) * FLOAT32 + BFLOAT16)
