"""What one seed's training is and has come to, whatever computes it, alone or with others.

Knows nothing of studies, trials or databases.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kmnist_search.config import TrialConfig
from kmnist_search.config.seeds import derived_seed
from kmnist_search.engine.program import EpochPlan, Program
from kmnist_search.engine.schedule import lr_at
from kmnist_search.errors import ConfigError, TrainingDivergedError
from kmnist_search.model import Model


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What one epoch came to. `number` counts from 1; losses are means, accuracies shares of 1.

    `train_loss` and `train_accuracy` are of the augmented batches as they were trained on. `val_loss` and
    `val_accuracy` are None when nothing is held out.
    """

    number: int
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None

    @property
    def plateau_loss(self) -> float:
        """The loss a plateau is seen by: of the validation images, or of the training images if there are no others."""
        return self.train_loss if self.val_loss is None else self.val_loss


class Replica:
    """The training of one seed, computed by a program as its replica `index`.

    Attributes:
        history: the epochs so far.
        seconds: time spent so far, from each epoch's beginning to its end.
        position: steps taken in the epoch at hand.
    """

    def __init__(self, config: TrialConfig, *, seed: int, device: torch.device, program: Program, index: int) -> None:
        self.config, self.seed, self.device = config, seed, device
        self.program, self.index, self.data = program, index, program.datasets[index]
        self.history: list[Epoch] = []
        self.seconds = 0.0
        self.position = 0
        self._begun_at: float | None = None
        self._is_validated = False

    @property
    def steps_per_epoch(self) -> int:
        return self.program.steps_per_epoch

    @property
    def step(self) -> int:
        """Steps taken so far, or on a GPU queued."""
        return len(self.history) * self.steps_per_epoch + self.position

    @property
    def finished(self) -> bool:
        """True when all epochs are over."""
        return len(self.history) == self.config.train.epochs

    @property
    def images_trained(self) -> int:
        return self.step * self.config.batch.batch_size

    @property
    def evaluated_model(self) -> Model:
        """The model that is validated, and kept in the end: the moving average if there is one."""
        return self.program.evaluated_model(self.index)

    def val_probabilities(self) -> NDArray[np.float32] | None:
        """Return what the last epoch's validation made of each image, (V, 10); None if it was not taken here, or empty.

        A checkpoint of a finished training has its weights and not this.
        """
        if not self._is_validated or not len(self.data.val_images):
            return None
        logits_VL = self.program.val_logits_SVL[self.index].cpu()
        return logits_VL.softmax(dim=1).numpy()

    def begin_epoch(self) -> EpochPlan:
        """Begin the next epoch, or go on with it, and return what is to be done in it."""
        epoch = len(self.history) + 1
        shuffle = torch.Generator(self.device).manual_seed(derived_seed(self.seed, epoch))
        first_step = len(self.history) * self.steps_per_epoch
        losses = [epoch.plateau_loss for epoch in self.history]
        rates = [
            lr_at(
                first_step + step,
                self.config.schedule,
                peak=self.config.optimizer.learning_rate,
                total_steps=self.config.train.epochs * self.steps_per_epoch,
                steps_per_epoch=self.steps_per_epoch,
                losses=losses,
            )
            for step in range(self.steps_per_epoch)
        ]
        self._begun_at = time.perf_counter()
        return EpochPlan(
            order=torch.randperm(len(self.data.train_images), generator=shuffle, device=self.device),
            rates=rates,
            first_step=first_step,
        )

    def end_epoch(self, sums: Sequence[float]) -> Epoch:
        """Return what the epoch came to whose `sums` (see `Program.sums_S4`) these are.

        Raises:
            TrainingDivergedError: a loss of it is not finite.
        """
        if not np.isfinite(sums).all():
            raise TrainingDivergedError(
                f"the loss is not finite in epoch {len(self.history) + 1}, by step {self.step:,}"
            )
        val_images = len(self.data.val_images)
        epoch = Epoch(
            number=len(self.history) + 1,
            train_loss=sums[0] / self.steps_per_epoch,
            train_accuracy=sums[1] / (self.steps_per_epoch * self.config.batch.batch_size),
            val_loss=sums[2] / val_images if val_images else None,
            val_accuracy=sums[3] / val_images if val_images else None,
        )
        self.seconds, self._begun_at, self.position = self.seconds_so_far, None, 0
        self.history.append(epoch)
        self._is_validated = True
        return epoch

    @property
    def seconds_so_far(self) -> float:
        """Time spent so far, with that of the epoch at hand."""
        return self.seconds + (time.perf_counter() - self._begun_at if self._begun_at is not None else 0.0)

    def fingerprint(self) -> dict[str, Any]:
        """Return what a checkpoint must share with a training to be its past."""
        return {
            "config": self.config.digest,
            "data": self.data.digest,
            "seed": self.seed,
            "device": self.device.type,
            "program": self.program.checkpoint_name,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on from this step, between two steps or two epochs."""
        sums = self.program.sums_S4[self.index].clone()
        sums[2:4] = 0  # an epoch goes on with the first of its validation images
        return {
            "fingerprint": self.fingerprint(),
            "program": self.program.state_dict(self.index),
            "generator": self.program.generators[self.index].get_state(),
            "sums": sums,
            "position": self.position,
            "seconds": self.seconds_so_far,
            "history": [asdict(epoch) for epoch in self.history],
        }

    def check(self, state: dict[str, Any]) -> None:
        """See whether `state` is of this training's past.

        Raises:
            ConfigError: it is of another configuration, seed, data set, kind of device or program.
        """
        if state["fingerprint"] != self.fingerprint():
            raise ConfigError(f"the checkpoint is of {state['fingerprint']}, this training is {self.fingerprint()}")

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken; on the CPU the rest is bit for bit what it would have been.

        Raises:
            ConfigError: it is not of this training's past, see `check`.
        """
        self.check(state)
        self.program.load_state_dict(self.index, state["program"])
        self.program.generators[self.index].set_state(state["generator"].cpu())
        self.program.sums_S4[self.index].copy_(state["sums"])
        self.position, self.seconds = state["position"], state["seconds"]
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        self._begun_at, self._is_validated = None, False
