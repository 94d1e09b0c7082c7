"""Estimates the memory of a training from its configuration and the size of its data, before a device is used.

The estimate is rather too high than too low.

Letters as in the model: B images of a batch, N tokens, D features, T token width, C channel width, P pixels per patch.
"""

from kmnist_search.config import NUM_CLASSES, LayersConfig, ModelConfig, TrialConfig, cost
from kmnist_search.config.layers import Dropout, simple_steps

GIB = 2**30
#: The largest validation batch of any program.
VAL_BATCH_SIZE = 2500
FLOAT32, BFLOAT16 = 4, 2  # bytes
#: Float32 images that augmentation holds at once: the batch, grids of two coordinates per pixel, the samples.
AUGMENTED_COPIES = 10
#: Bytes that even the smallest training takes on a GPU: a cuBLAS workspace for its stream, 32 MiB on Hopper, another
#: for the capture, and blocks that the allocator rounds up. A guess from NVIDIA's documentation, not measured.
GPU_OVERHEAD = 128 * 2**20
#: Bytes that autocast keeps for each input of a layer norm besides two numbers in bfloat16: its float32 input and
#: output, and a bfloat16 copy of the output, are 10 bytes.
AUTOCAST_NORM_BYTES = 6
#: The warm-up allocates from the ordinary pool, and the captured steps allocate the same again from their own.
GRAPH_POOLS = 2


def memory_needed(
    config: TrialConfig,
    *,
    train_images: int,
    val_images: int,
    activation_bytes: int,
    on_gpu: bool,
    uses_autocast: bool = False,
) -> int:
    """Return about how many bytes one training takes, without the images, which all trainings share.

    Args:
        config: configuration of the training.
        train_images: images of the training part.
        val_images: images of the validation part.
        activation_bytes: bytes of a number in an activation, 2 in bfloat16 and 4 in float32.
        on_gpu: whether steps are captured as CUDA graphs, which have their own memory.
        uses_autocast: whether torch's autocast gives the layer norms float32 inputs and outputs.
    """
    batch, size = config.batch.batch_size, config.model.image_size
    saved = saved_numbers(config.model) * batch
    passing = _passing_numbers(config.model)
    step = (saved + 2 * passing * batch) * activation_bytes + AUGMENTED_COPIES * batch * size**2 * FLOAT32
    if uses_autocast:
        step += _normed_numbers(config.model) * batch * AUTOCAST_NORM_BYTES
    validated = min(val_images, VAL_BATCH_SIZE)
    validation = validated * (passing * activation_bytes + 2 * size**2 * FLOAT32)
    activations = max(step, validation) * (GRAPH_POOLS if on_gpu else 1)
    order = train_images * 8  # a position as int64
    own_images = (train_images + val_images) * size**2 if size != 28 else 0  # not shared with other trainings
    return _parameter_bytes(config) + activations + order + own_images + (GPU_OVERHEAD if on_gpu else 0)


def saved_numbers(config: ModelConfig) -> int:
    """Return how many numbers of one image a forward pass keeps for the backward pass."""
    if isinstance(config, LayersConfig):
        # The input of each layer, and a mask of the same size for each dropout.
        steps = list(simple_steps(config.steps()))
        masks = sum(step.before.size for step in steps if isinstance(step.layer, Dropout))
        return sum(step.before.size for step in steps) + masks + config.num_classified + NUM_CLASSES
    N, D, P = config.num_tokens, config.dim, config.patch_size**2
    # The input and the output of a norm; without a norm they are the same.
    normed = N * D * (1 if config.norm == "none" else 2)
    # The hidden layer before and after the activation (ReLU needs only the output). With dropout: before or after the
    # activation, the mask, and the result.
    hidden = 3 if config.dropout else 2 if config.activation == "gelu" else 1
    blocks = sum(
        2 * normed + hidden * (T * D + N * C) for T, C in zip(config.token_widths, config.channel_widths, strict=True)
    )
    return N * P + blocks + normed + D + NUM_CLASSES


def _normed_numbers(config: ModelConfig) -> int:
    """Return how many numbers of one image are inputs of layer norms."""
    if isinstance(config, LayersConfig) or config.norm != "layer":
        return 0
    return (2 * config.num_blocks + 1) * config.num_tokens * config.dim


def _passing_numbers(config: ModelConfig) -> int:
    """Return the numbers of one image that exist for a moment at the widest layer, or as its gradients."""
    if isinstance(config, LayersConfig):
        return 2 * max(step.before.size + step.after.size for step in simple_steps(config.steps()))
    N, D = config.num_tokens, config.dim
    widest = max(max(T * D, N * C) for T, C in zip(config.token_widths, config.channel_widths, strict=True))
    return 2 * N * D + 2 * widest


def _parameter_bytes(config: TrialConfig) -> int:
    """Return the bytes of parameters, gradients, moments and moving average in float32, and of a bfloat16 copy."""
    moments = {"adamw": 2, "adam": 2, "sgd": 1 if config.optimizer.momentum else 0}[config.optimizer.optimizer]
    averages = 1 if config.optimizer.ema_decay else 0
    return cost.num_parameters(config.model) * ((2 + moments + averages) * FLOAT32 + BFLOAT16)
