"""The torch backend: one training's steps with autograd, for CPUs and as the reference of the Triton backend.

Shapes: B images of a batch, H = W pixels per side, E steps of an epoch.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kmnist_search.config import NUM_CLASSES, TrialConfig
from kmnist_search.config.seeds import derived_seed
from kmnist_search.data.search_data import SearchData
from kmnist_search.engine.augment import augment, mixup
from kmnist_search.engine.device import copy_from_host, has_bfloat16
from kmnist_search.engine.onednn import onednn_products
from kmnist_search.engine.optimizer import MovingAverage, average_share, make_optimizer
from kmnist_search.engine.program import EpochPlan
from kmnist_search.model import Model, build

#: Images of one validation batch; the accuracy does not depend on it.
VAL_BATCH_SIZE = 1000


class TorchProgram:
    """Steps with torch's autograd and optimizers, in bfloat16 by autocast on a GPU; see `Program`."""

    checkpoint_name = "plain"  # the name in all checkpoints so far

    def __init__(self, config: TrialConfig, data: SearchData, *, seed: int, device: torch.device) -> None:
        self.config, self.data, self.device = config, data, device
        self.datasets = [data]
        self.steps_per_epoch = len(data.train_images) // config.batch.batch_size
        self.val_batches = -(-len(data.val_images) // VAL_BATCH_SIZE)
        self.model = build(config.model, seed).to(device)
        self.optimizer = make_optimizer(self.model, config.optimizer)
        decay = config.optimizer.ema_decay
        self.average = MovingAverage(self.model, decay) if decay else None
        self.generators = [torch.Generator(device).manual_seed(derived_seed(seed, 0))]
        self.autocast = uses_bfloat16(config, device)
        self.sums_S4 = torch.zeros(1, 4, dtype=torch.float64, device=device)
        self.val_logits_SVL = torch.zeros(1, len(data.val_images), NUM_CLASSES, device=device)
        images = self.steps_per_epoch * config.batch.batch_size
        self._order_EB = torch.zeros(images, dtype=torch.int64, device=device).view(self.steps_per_epoch, -1)
        # On the device, because on a GPU a captured step is replayed and must find new numbers in the same tensors.
        self._rates_E2 = torch.zeros(self.steps_per_epoch, 2, dtype=torch.float64, device=device)
        self._position = torch.zeros(1, dtype=torch.int64, device=device)
        if device.type == "cuda":
            for group in self.optimizer.param_groups:
                group["lr"] = torch.zeros((), device=device)

    def begin(self, plans: list[EpochPlan]) -> None:
        (plan,) = plans
        self._order_EB.copy_(plan.order[: self._order_EB.numel()].view_as(self._order_EB))
        shares = [
            average_share(self.average.decay, plan.first_step + step) if self.average else 0.0
            for step in range(len(plan.rates))
        ]
        copy_from_host(torch.tensor([plan.rates, shares], dtype=torch.float64).T.contiguous(), self._rates_E2)
        self._position.zero_()

    def train_step(self, offset: int = 0) -> None:
        at = self._position + offset
        rate, share = self._rates_E2[at][0]
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].copy_(rate)
            else:
                group["lr"] = rate.item()
            if "capturable" in group and self.device.type == "cuda":  # else torch refuses or warns
                group["capturable"] = torch.cuda.is_current_stream_capturing()
        batch_B = self._order_EB[at][0]
        loss, correct = self._loss(self.data.train_images[batch_B], self.data.train_labels[batch_B])
        self.optimizer.zero_grad()
        loss.backward()
        if self.config.optimizer.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimizer.clip_norm)
        self.optimizer.step()
        if self.average:
            self.average.update(self.model, share)
        self.sums_S4[0, 0:2] += torch.stack((loss.detach().double(), correct.double()))

    def advance_position(self, steps: int) -> None:
        self._position += steps

    @torch.no_grad()
    def val_batch(self, number: int) -> None:
        part = slice(number * VAL_BATCH_SIZE, (number + 1) * VAL_BATCH_SIZE)
        images_BHW, labels_B = self.data.val_images[part], self.data.val_labels[part]
        net = self.evaluated_model(0).eval()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast), onednn_products(self.device):
            logits = net(self._normalised(images_BHW.float().div_(255)))
        self.val_logits_SVL[0, part] = logits.float()
        loss = F.cross_entropy(logits.float(), labels_B, reduction="sum")
        correct = (logits.argmax(dim=1) == labels_B).sum()
        self.sums_S4[0, 2:4] += torch.stack((loss.double(), correct.double()))

    def _loss(self, images_BHW: Tensor, labels_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean loss of a batch of uint8 images, and the number of correct answers."""
        config, generator = self.config, self.generators[0]
        x_BHW = augment(images_BHW.float().div_(255), config.augment, generator)
        partners_B = share_B = None
        if config.augment.mixup:
            x_BHW, partners_B, share_B = mixup(x_BHW, config.augment.mixup, generator)
        self.model.train()
        noise = self.model.draw(len(x_BHW), torch.bfloat16 if self.autocast else torch.float32, generator)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast), onednn_products(self.device):
            logits = self.model(self._normalised(x_BHW), noise)
        smoothing = config.batch.label_smoothing
        losses_B = F.cross_entropy(logits.float(), labels_B, label_smoothing=smoothing, reduction="none")
        if partners_B is not None and share_B is not None:
            other_labels_B = labels_B[partners_B]
            others_B = F.cross_entropy(logits.float(), other_labels_B, label_smoothing=smoothing, reduction="none")
            losses_B = share_B * losses_B + (1 - share_B) * others_B
            labels_B = torch.where(share_B >= 0.5, labels_B, other_labels_B)
        return losses_B.mean(), (logits.argmax(dim=1) == labels_B).sum()

    def _normalised(self, images_BHW: Tensor) -> Tensor:
        return (images_BHW - self.data.mean) / self.data.std

    def changed_by_steps(self) -> list[Tensor]:
        nets = [self.model, self.average.model] if self.average else [self.model]
        weights = [tensor for net in nets for tensor in (*net.parameters(), *net.buffers())]
        moments = [
            value for state in self.optimizer.state.values() for value in state.values() if isinstance(value, Tensor)
        ]
        return [*weights, *moments, self.sums_S4, self.val_logits_SVL, self._position]

    def evaluated_model(self, replica: int) -> Model:
        return self.average.model if self.average else self.model

    def state_dict(self, replica: int) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "average": self.average.model.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, replica: int, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        if self.average:
            self.average.model.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])


def uses_bfloat16(config: TrialConfig, device: torch.device) -> bool:
    """Return whether matrix products are computed in bfloat16."""
    if config.train.precision == "auto":
        return has_bfloat16(device)
    return config.train.precision == "bfloat16"
