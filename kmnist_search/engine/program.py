"""What a way to compute the steps of trainings must offer, and what it is told of an epoch. Computes nothing.

Legend: S members (trainings that are computed together and differ in their seeds), E steps of an epoch, V validation
images, L labels.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from kmnist_search.data.search_data import SearchData
from kmnist_search.model import Model


@dataclass(frozen=True, eq=False, kw_only=True)
class EpochPlan:
    """What one member does in an epoch.

    Attributes:
        order: positions of the training images in the order in which they are trained on, on the device.
        rates: the learning rate of each step.
        first_step: the number of the first step, from 0 at the start of the training.
    """

    order: Tensor
    rates: list[float]
    first_step: int


class Program(Protocol):
    """Computes training steps and validation batches of S members.

    Nothing is read back from a GPU by `begin`, `train_step`, `move_on` or `val_batch`, and all but `begin` use the
    same memory in the same way each time, so that they can be captured in a CUDA graph.

    Attributes:
        name: of the way to compute; a checkpoint of one cannot be gone on with by another.
        datas: each member's images, on the device and in the model's size.
        sums_S4: train loss (a sum of batch means), train correct, validation loss (a sum), validation correct.
        val_logits_SVL: what the validation batches came to, float32.
        generators: what is drawn from, one a member.
    """

    name: str
    datas: list[SearchData]
    sums_S4: Tensor
    val_logits_SVL: Tensor
    steps_per_epoch: int
    val_batches: int
    generators: list[torch.Generator]

    def begin(self, plans: list[EpochPlan]) -> None:
        """Take in what the members do in the epoch that begins, and stand before its first step."""

    def train_step(self, offset: int = 0) -> None:
        """Train on the batch `offset` steps past the current one."""

    def move_on(self, steps: int) -> None:
        """Stand so many steps further."""

    def val_batch(self, number: int) -> None:
        """Add a batch of the validation images to the sums, and keep its logits."""

    def changed_by_steps(self) -> list[Tensor]:
        """Return every tensor that steps and validation batches change; those made by the first step begin as zeros."""

    def evaluated_model(self, member: int) -> Model:
        """Return the model that is validated, and kept in the end: the moving average if there is one."""

    def state_dict(self, member: int) -> dict[str, Any]:
        """Return what a member's steps have changed."""

    def load_state_dict(self, member: int, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
