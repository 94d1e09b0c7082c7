"""The Triton backend: the steps of S trainings of one configuration, on a GPU or in Triton's interpreter.

Working weights and activations are bfloat16; master weights, moments, norms and sums float32. It draws the same random
numbers as `torch_program.TorchProgram`, in the same order.

Legend: S replicas, E steps of an epoch, B images of a batch, P parameters in a flat buffer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kmnist_search.config import NUM_CLASSES, TrialConfig
from kmnist_search.config.seeds import derived_seed
from kmnist_search.data.search_data import SearchData
from kmnist_search.engine.augment import draw_augment, draw_mixup
from kmnist_search.engine.device import copy_from_host
from kmnist_search.engine.flat_layout import FlatLayout
from kmnist_search.engine.kernels.loss import train_loss, val_loss
from kmnist_search.engine.kernels.optimizer import BETA1, Buffers, optimizer_step
from kmnist_search.engine.kernels.patches import Warp, make_patches
from kmnist_search.engine.optimizer import average_share
from kmnist_search.engine.program import EpochPlan
from kmnist_search.engine.torch_program import uses_bfloat16
from kmnist_search.engine.triton_net import Gradients, Noise, TritonNet, Weights
from kmnist_search.model import build
from kmnist_search.model.patch_mlp import PatchMLP, draw_noise, drop_path_keeps

#: Images of one validation batch: enough to fill a GPU, few enough for its memory (reasoned, not measured).
VAL_BATCH_SIZE = 2500
#: Partial sums of the squared gradients, one kernel program each.
NORM_SLOTS = 128


class TritonProgram:
    """Steps of S trainings in one set of matrix products and kernels; see `Program`."""

    checkpoint_name = "fused"  # the name in all checkpoints so far

    def __init__(
        self, config: TrialConfig, datasets: Sequence[SearchData], *, seeds: Sequence[int], device: torch.device
    ) -> None:
        self.config, self.datasets, self.device = config, list(datasets), device
        batch_size = config.batch.batch_size
        self._train = _Images.of([(data.train_images, data.train_labels) for data in datasets])
        self._val = _Images.of([(data.val_images, data.val_labels) for data in datasets])
        self._mean_std_S2 = torch.tensor([(data.mean, data.std) for data in datasets], device=device)
        self.steps_per_epoch = self._train.positions_SI.shape[1] // batch_size
        self.val_batches = -(-self._val.positions_SI.shape[1] // VAL_BATCH_SIZE)
        self.generators = [torch.Generator(device).manual_seed(derived_seed(seed, 0)) for seed in seeds]
        self.sums_S4 = torch.zeros(len(seeds), 4, dtype=torch.float64, device=device)
        self.val_logits_SVL = torch.zeros(*self._val.positions_SI.shape, NUM_CLASSES, device=device)
        self._dtype = torch.bfloat16 if uses_bfloat16(config, device) else torch.float32
        self._net = TritonNet(config.patch_mlp)
        self._keeps_K11 = drop_path_keeps(config.patch_mlp, device)
        self._layout = layout = FlatLayout(config.patch_mlp)
        self._gradients = Gradients(layout, len(seeds), batch_size, self._dtype, device)
        masters_SP = torch.stack([layout.flattened(build(config.patch_mlp, seed)) for seed in seeds]).to(device)
        has_second = config.optimizer.optimizer != "sgd"
        self._buffers = Buffers(
            masters_SP=masters_SP,
            work_SM=masters_SP[:, : layout.num_matrix].to(self._dtype, copy=True).contiguous(),
            matrix_grads_SM=self._gradients.matrices_SM,
            vector_grads_SV=self._gradients.vectors_SV,
            first_SP=torch.zeros_like(masters_SP),
            second_SP=torch.zeros_like(masters_SP) if has_second else None,
            average_SP=masters_SP.clone() if config.optimizer.ema_decay else None,
            norms_SG=torch.zeros(len(seeds), NORM_SLOTS, device=device),
        )
        self._weights = Weights(layout, self._buffers.work_SM, masters_SP[:, layout.num_matrix :])
        # Images and labels of each step, so that one lookup finds both.
        self._batches_SE2B = torch.zeros(
            len(seeds), self.steps_per_epoch, 2, batch_size, dtype=torch.int64, device=device
        )
        self._rates_SE4 = torch.zeros(len(seeds), self.steps_per_epoch, 4, device=device)
        self._position = torch.zeros(1, dtype=torch.int64, device=device)

    def begin(self, plans: list[EpochPlan]) -> None:
        steps, size = self.steps_per_epoch, self.config.batch.batch_size
        for replica, plan in enumerate(plans):
            positions_EB = self._train.positions_SI[replica, plan.order[: steps * size]].view(steps, size)
            self._batches_SE2B[replica] = torch.stack((positions_EB, self._train.labels[positions_EB]), dim=1)
            copy_from_host(self._rates(plan), self._rates_SE4[replica])
        self._position.zero_()

    def _rates(self, plan: EpochPlan) -> Tensor:
        """Return learning rate, bias corrections of the moments and share of the average of each step, (E, 4)."""
        optimizer, first = self.config.optimizer, plan.first_step
        rows = [
            (
                rate,
                1 - BETA1 ** (first + step + 1),
                1 - optimizer.beta2 ** (first + step + 1),
                average_share(optimizer.ema_decay, first + step),
            )
            for step, rate in enumerate(plan.rates)
        ]
        return torch.tensor(rows, dtype=torch.float32)

    def train_step(self, offset: int = 0) -> None:
        batch_S2B = self._batches_SE2B.index_select(1, self._position + offset).squeeze(1)
        images_SB, labels_SB = batch_S2B.unbind(1)
        patches_SNBP, partners_SB, share_SB = self._augmented(images_SB.contiguous())
        noise = self._noise(images_SB.shape[1])
        saved = self._net.forward(self._weights, patches_SNBP, noise)
        labels_SB = labels_SB.contiguous()
        dlogits_SBL = train_loss(
            saved.logits_SBL,
            self._weights.vector("classifier.bias"),
            labels_SB,
            smoothing=self.config.batch.label_smoothing,
            sums_S4=self.sums_S4,
            dbias_SL=self._gradients.single("classifier.bias"),
            partner_labels_SB=None if partners_SB is None else labels_SB.gather(1, partners_SB),
            share_SB=share_SB,
        )
        self._net.backward(self._weights, self._gradients, saved, dlogits_SBL, noise)
        optimizer_step(self._buffers, self.config.optimizer, self._rates_SE4, self._position, offset)

    def _augmented(self, images_SB: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return the patches of a batch of images, and what mixup drew."""
        strengths, size = self.config.augment, images_SB.shape[1]
        image_size = self.config.patch_mlp.image_size
        draws, mixes = [], []
        for generator in self.generators:
            draws.append(draw_augment(strengths, size, image_size, self.device, generator))
            if strengths.mixup:
                mixes.append(draw_mixup(strengths.mixup, size, self.device, generator))
        partners_SB, share_SB = (_stacked(list(drawn)) for drawn in zip(*mixes, strict=True)) if mixes else (None, None)
        patches_SNBP = make_patches(
            *(self._train.images, images_SB, self._mean_std_S2),
            patch_size=self.config.patch_mlp.patch_size,
            padded_pixels=self._layout.padded_pixels,
            dtype=self._dtype,
            warp=Warp(
                shift=strengths.shift,
                rotate=strengths.rotate,
                scale=strengths.scale,
                shear=strengths.shear,
                elastic=strengths.elastic,
            ),
            affine_S5B=_stacked([drawn.affine_5B for drawn in draws]),
            displacements_SB2CC=_stacked([drawn.displacements_B2CC for drawn in draws]),
            cutout=strengths.cutout,
            centres_S2B=_stacked([drawn.centres_2B for drawn in draws]),
            partners_SB=partners_SB,
            share_SB=share_SB,
        )
        return patches_SNBP, partners_SB, share_SB

    def _noise(self, batch_size: int) -> Noise:
        config, dtype = self.config.patch_mlp, self._dtype
        drawn = [
            draw_noise(config, self._keeps_K11, batch_size=batch_size, dtype=dtype, generator=generator)
            for generator in self.generators
        ]
        masks = zip(*(noise.masks for noise in drawn), strict=True)
        return Noise(
            factors_K2SB=_stacked([noise.factors_K2B for noise in drawn], dim=2),
            masks=[torch.stack(per_replica) for per_replica in masks] if config.dropout else None,
        )

    def advance_position(self, steps: int) -> None:
        self._position += steps

    def val_batch(self, number: int) -> None:
        part = slice(number * VAL_BATCH_SIZE, (number + 1) * VAL_BATCH_SIZE)
        average_SP, M = self._buffers.average_SP, self._layout.num_matrix
        weights = self._weights
        if average_SP is not None:
            weights = Weights(self._layout, average_SP[:, :M].to(self._dtype), average_SP[:, M:])
        positions_SB = self._val.positions_SI[:, part].contiguous()
        patches_SNBP = make_patches(
            *(self._val.images, positions_SB, self._mean_std_S2),
            patch_size=self.config.patch_mlp.patch_size,
            padded_pixels=self._layout.padded_pixels,
            dtype=self._dtype,
        )
        saved = self._net.forward(weights, patches_SNBP, keep=False)
        bias_SL = weights.vector("classifier.bias")
        self.val_logits_SVL[:, part] = (saved.logits_SBL + bias_SL[:, None])[..., :NUM_CLASSES]
        val_loss(saved.logits_SBL, bias_SL, self._val.labels[positions_SB], sums_S4=self.sums_S4)

    def changed_by_steps(self) -> list[Tensor]:
        return [*self._state().values(), self._buffers.work_SM, self.sums_S4, self.val_logits_SVL, self._position]

    def evaluated_model(self, replica: int) -> PatchMLP:
        average_SP = self._buffers.average_SP
        weights_SP = self._buffers.masters_SP if average_SP is None else average_SP
        return self._layout.unflattened(weights_SP[replica]).to(self.device)

    def state_dict(self, replica: int) -> dict[str, Any]:
        return {name: buffer_SP[replica].clone() for name, buffer_SP in self._state().items()}

    def load_state_dict(self, replica: int, state: dict[str, Any]) -> None:
        for name, buffer_SP in self._state().items():
            buffer_SP[replica].copy_(state[name])
        self._buffers.work_SM[replica].copy_(self._buffers.masters_SP[replica, : self._layout.num_matrix])

    def _state(self) -> dict[str, Tensor]:
        buffers = self._buffers
        named = {
            "masters": buffers.masters_SP,
            "first": buffers.first_SP,
            "second": buffers.second_SP,
            "average": buffers.average_SP,
        }
        return {name: buffer_SP for name, buffer_SP in named.items() if buffer_SP is not None}


@dataclass(frozen=True, eq=False, kw_only=True)
class _Images:
    """The images of all replicas, those that are the same kept once.

    Attributes:
        images: uint8 (M, H, W).
        labels: int64 (M,).
        positions_SI: where in these each replica's own are.
    """

    images: Tensor
    labels: Tensor
    positions_SI: Tensor

    @classmethod
    def of(cls, replicas: Sequence[tuple[Tensor, Tensor]]) -> "_Images":
        kept: dict[int, int] = {}  # where the images begin, by where they lie in memory
        parts, begin = [], 0
        for images, labels in replicas:
            if images.data_ptr() not in kept:
                kept[images.data_ptr()] = begin
                parts.append((images, labels))
                begin += len(images)
        own = torch.arange(len(replicas[0][0]), device=replicas[0][0].device)
        return cls(
            images=_joined([images for images, _ in parts]),
            labels=_joined([labels for _, labels in parts]),
            positions_SI=torch.stack([own + kept[images.data_ptr()] for images, _ in replicas]),
        )


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _stacked(per_replica: Sequence[Tensor | None], dim: int = 0) -> Tensor | None:
    """Return the replicas' tensors as one, None if they have none, without copying where there is one replica."""
    tensors = [tensor for tensor in per_replica if tensor is not None]
    if not tensors:
        return None
    return torch.stack(tensors, dim) if len(tensors) > 1 else tensors[0].unsqueeze(dim)
