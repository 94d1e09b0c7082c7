"""The interface of a program: what computes the training steps and validation batches of one or more replicas.

Legend: S replicas (trainings of one configuration with different seeds, computed together), E steps of an epoch, V
validation images, L labels.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from kmnist_search.data.search_data import SearchData
from kmnist_search.model import Model


@dataclass(frozen=True, eq=False, kw_only=True)
class EpochPlan:
    """What one replica trains on in an epoch.

    Attributes:
        order: positions of the training images in the order in which they are trained on, on the device.
        rates: the learning rate of each step.
        first_step: the number of the first step, from 0 at the start of the training.
    """

    order: Tensor
    rates: list[float]
    first_step: int


class Program(Protocol):
    """Computes training steps and validation batches of S replicas.

    `begin`, `train_step`, `advance_position` and `val_batch` read nothing back from a GPU. All but `begin` use the same
    memory in the same way each time, so that they can be captured in a CUDA graph.

    Attributes:
        checkpoint_name: names the kind of program in checkpoints; another kind cannot resume them.
        datasets: each replica's images, on the device and in the model's size.
        sums_S4: train loss (a sum of batch means), train correct, validation loss (a sum), validation correct.
        val_logits_SVL: the logits of the validation images, float32.
        steps_per_epoch: training batches of an epoch.
        val_batches: validation batches of an epoch.
        generators: the random generator of each replica.
    """

    checkpoint_name: str
    datasets: list[SearchData]
    sums_S4: Tensor
    val_logits_SVL: Tensor
    steps_per_epoch: int
    val_batches: int
    generators: list[torch.Generator]

    def begin(self, plans: list[EpochPlan]) -> None:
        """Start an epoch: take the plan of each replica and set the position to its first step."""

    def train_step(self, offset: int = 0) -> None:
        """Train on the batch `offset` steps past the current position."""

    def advance_position(self, steps: int) -> None:
        """Move the position by `steps`."""

    def val_batch(self, number: int) -> None:
        """Add a batch of the validation images to the sums, and keep its logits."""

    def changed_by_steps(self) -> list[Tensor]:
        """Return every tensor that steps and validation batches change; those made by the first step begin as zeros."""

    def evaluated_model(self, replica: int) -> Model:
        """Return the model that is validated and saved: the moving average if there is one."""

    def state_dict(self, replica: int) -> dict[str, Any]:
        """Return what the steps of a replica have changed."""

    def load_state_dict(self, replica: int, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
