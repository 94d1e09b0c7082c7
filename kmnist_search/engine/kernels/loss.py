"""Cross-entropy with label smoothing and mixup, its gradient and the epoch's counts, one program per replica.

Shapes: S stacked replicas, B images of a batch, L logits, of which the first NUM_CLASSES are real and the rest padding.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kmnist_search.config import NUM_CLASSES
from kmnist_search.engine.kernels.launch import launch, power_of_2, stride

#: Images per round: with 16 logits a tile of 2,048. A batch of 256 takes two. Reasoned, not measured.
BLOCK_B = 128


def train_loss(
    logits_SBL: Tensor,
    bias_SL: Tensor,
    labels_SB: Tensor,
    *,
    smoothing: float,
    sums_S4: Tensor,
    dbias_SL: Tensor,
    partner_labels_SB: Tensor | None = None,
    share_SB: Tensor | None = None,
) -> Tensor:
    """Return the gradient of the mean loss by logits + bias, (S, B, L), 0 in the padding; fill the bias's gradient.

    Args:
        logits_SBL: output of the classifier, without its bias.
        bias_SL: float32.
        labels_SB: int64.
        smoothing: share of the label that is spread over all classes.
        sums_S4: float64; for each replica the mean loss is added to the first number, and the count of right answers to
            the second. The right label of a mixed image is that of the larger share.
        dbias_SL: float32 gradient of the bias, 0 in the padding.
        partner_labels_SB: int64 labels of the images that mixup blended in.
        share_SB: float32 share of the first image in the blend.
    """
    S, B, L = logits_SBL.shape
    dlogits_SBL = torch.empty_like(logits_SBL)
    launch(
        _loss_kernel,
        (S,),
        *(logits_SBL, bias_SL, labels_SB, partner_labels_SB, share_SB, sums_S4, dlogits_SBL, dbias_SL),
        *(B, L, stride(bias_SL), stride(dbias_SL), smoothing),
        CLASSES=NUM_CLASSES,
        BLOCK_B=BLOCK_B,
        BLOCK_L=power_of_2(L),
    )
    return dlogits_SBL


def val_loss(logits_SBL: Tensor, bias_SL: Tensor, labels_SB: Tensor, *, sums_S4: Tensor) -> None:
    """Add the sum of the cross-entropies to the third number of `sums_S4`, the count of right answers to the fourth.

    Args:
        logits_SBL: output of the classifier, without its bias.
        bias_SL: float32.
        labels_SB: int64.
        sums_S4: float64.
    """
    S, B, L = logits_SBL.shape
    launch(
        _loss_kernel,
        (S,),
        *(logits_SBL, bias_SL, labels_SB, None, None, sums_S4, None, None),
        *(B, L, stride(bias_SL), 0, 0.0),
        CLASSES=NUM_CLASSES,
        BLOCK_B=BLOCK_B,
        BLOCK_L=power_of_2(L),
    )


@triton.jit(
    do_not_specialize=[
        *("bias", "labels", "partner_labels", "share", "sums", "dbias"),
        *("images", "bias_stride", "dbias_stride"),
    ]
)
def _loss_kernel(
    logits: tl.tensor,
    bias: tl.tensor,
    labels: tl.tensor,
    partner_labels: tl.tensor,
    share: tl.tensor,
    sums: tl.tensor,
    dlogits: tl.tensor,
    dbias: tl.tensor,
    images: int,
    width: int,
    bias_stride: int,
    dbias_stride: int,
    smoothing: float,
    CLASSES: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_L: tl.constexpr,
) -> None:
    """Grid: replicas. With `dlogits` it is the training loss, else the validation loss."""
    replica = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK_L)
    is_class = column < CLASSES
    in_width = column < width
    shift = tl.load(bias + replica * bias_stride + column, mask=is_class, other=0.0)
    loss_sum = tl.zeros((BLOCK_B,), tl.float32)
    right_sum = tl.zeros((BLOCK_B,), tl.int32)
    bias_sum = tl.zeros((BLOCK_B, BLOCK_L), tl.float32)

    for start in range(0, images, BLOCK_B):
        image = start + tl.arange(0, BLOCK_B)
        in_batch = image < images
        inside = in_batch[:, None] & is_class[None, :]
        at = (replica * images + image)[:, None] * width + column[None, :]
        value = tl.load(logits + at, mask=inside, other=0.0).to(tl.float32) + shift[None, :]
        value = tl.where(is_class[None, :], value, float("-inf"))
        best = tl.argmax(value, axis=1)  # the first of equals, as in torch
        value -= tl.max(value, axis=1)[:, None]
        power = tl.exp(value)
        total = tl.sum(power, axis=1)
        log_share = tl.where(inside, value - tl.log(total)[:, None], 0.0)

        label = tl.load(labels + replica * images + image, mask=in_batch, other=0)
        is_label = (column[None, :] == label[:, None]).to(tl.float32)
        if share is not None:
            first = tl.load(share + replica * images + image, mask=in_batch, other=1.0)
            other = tl.load(partner_labels + replica * images + image, mask=in_batch, other=0)
            is_other = (column[None, :] == other[:, None]).to(tl.float32)
            is_label = first[:, None] * is_label + (1 - first)[:, None] * is_other
            label = tl.where(first >= 0.5, label, other)
        target = (1 - smoothing) * is_label + smoothing / CLASSES
        loss_sum -= tl.sum(target * log_share, axis=1)
        right_sum += (in_batch & (best == label)).to(tl.int32)
        if dlogits is not None:
            gradient = tl.where(inside, (power / total[:, None] - target) / images, 0.0)
            tl.store(dlogits + at, gradient.to(dlogits.dtype.element_ty), mask=in_batch[:, None] & in_width[None, :])
            bias_sum += gradient

    loss, right = tl.sum(loss_sum, axis=0), tl.sum(right_sum, axis=0)
    if dlogits is not None:
        tl.store(dbias + replica * dbias_stride + column, tl.sum(bias_sum, axis=0), mask=in_width)
        loss /= images
    slot = sums + replica * 4 + (0 if dlogits is not None else 2)
    tl.store(slot, tl.load(slot) + loss.to(tl.float64))
    tl.store(slot + 1, tl.load(slot + 1) + right.to(tl.float64))
