"""A replica: the training of a configuration with one seed, its progress and its checkpoint state."""

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
    """The results of one epoch. `number` counts from 1; losses are means, accuracies shares of 1.

    `train_loss` and `train_accuracy` are of the augmented training batches. `val_loss` and
    `val_accuracy` are None when nothing is held out.
    """

    number: int
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None

    @property
    def accuracy(self) -> float:
        """That of the validation images, or of training if there are none."""
        return self.train_accuracy if self.val_accuracy is None else self.val_accuracy

    @property
    def plateau_loss(self) -> float:
        """The loss that the plateau schedule reads: of the validation images, or of training if there are none."""
        return self.train_loss if self.val_loss is None else self.val_loss


class Replica:
    """The training with one seed, computed by a program as its replica `index`.

    Attributes:
        history: the epochs so far.
        seconds: training time of the ended epochs.
        position: steps taken in the current epoch.
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
    def share_of_epoch(self) -> float:
        """How much of the present epoch is trained, from 0 to 1."""
        return self.position / self.steps_per_epoch

    @property
    def steps_per_epoch(self) -> int:
        return self.program.steps_per_epoch

    @property
    def step(self) -> int:
        """Steps taken so far; on a GPU, queued so far."""
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
        """The model that is validated and saved: the moving average if there is one."""
        return self.program.evaluated_model(self.index)

    def val_probabilities(self) -> NDArray[np.float32] | None:
        """Return the class probabilities of the validation images after the last epoch, (V, 10).

        None if there are no such images, or if this process has not validated: checkpoints do not hold them.
        """
        if not self._is_validated or not len(self.data.val_images):
            return None
        logits_VL = self.program.val_logits_SVL[self.index].cpu()
        return logits_VL.softmax(dim=1).numpy()

    def begin_epoch(self) -> EpochPlan:
        """Begin or resume the next epoch and return its plan."""
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
        """Return the results of the epoch with these `sums` (see `Program.sums_S4`).

        Raises:
            TrainingDivergedError: a loss is not finite.
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
        """Training time so far, including the current epoch."""
        return self.seconds + (time.perf_counter() - self._begun_at if self._begun_at is not None else 0.0)

    def fingerprint(self) -> dict[str, Any]:
        """Return what a training and its checkpoints must have in common."""
        return {
            "config": self.config.digest,
            "data": self.data.digest,
            "seed": self.seed,
            "device": self.device.type,
            "program": self.program.checkpoint_name,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to resume from this step."""
        sums = self.program.sums_S4[self.index].clone()
        sums[2:4] = 0  # a resumed epoch validates from its first image
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
        """Check that `state` is a state of this training.

        Raises:
            ConfigError: it is of another configuration, seed, data set, kind of device or backend.
        """
        if state["fingerprint"] != self.fingerprint():
            raise ConfigError(f"the checkpoint is of {state['fingerprint']}, this training is {self.fingerprint()}")

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from `state`. On the CPU the results equal those of an uninterrupted training bit for bit.

        Raises:
            ConfigError: it is of another training, see `check`.
        """
        self.check(state)
        self.program.load_state_dict(self.index, state["program"])
        self.program.generators[self.index].set_state(state["generator"].cpu())
        self.program.sums_S4[self.index].copy_(state["sums"])
        self.position, self.seconds = state["position"], state["seconds"]
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        self._begun_at, self._is_validated = None, False
