"""Train one configuration. Knows nothing of studies, trials or databases.

Shapes: B images of a batch, H = W pixels a side.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kmnist_search import model as patch_mlp
from kmnist_search.augment import augment, mixup
from kmnist_search.config import TrialConfig
from kmnist_search.data.search_data import SearchData
from kmnist_search.engine.optimizer import MovingAverage, make_optimizer
from kmnist_search.engine.schedule import lr_at
from kmnist_search.errors import ConfigError, TrainingDivergedError
from kmnist_search.seeds import derived_seed

#: Images of one validation step; the accuracy does not depend on it.
VAL_BATCH_SIZE = 1000


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


def never() -> bool:
    return False


class Training:
    """One training of a PatchMLP, an epoch at a time: `launch()`, and once `ready()`, `read()`.

    `launch` queues an epoch on a GPU and returns, on the CPU it runs it; nothing is read back from the device before
    `read`. The images left over after the last whole batch of an epoch are not trained on in that epoch.

    Attributes:
        history: the epochs read so far.
        step: steps taken so far.
        seconds: time spent so far, from each launch to its read.
    """

    def __init__(self, config: TrialConfig, data: SearchData, *, seed: int, device: torch.device) -> None:
        """Build model and optimizer on `device`; `seed` decides weights, order and augmentation.

        Raises:
            ConfigError: a batch is larger than the training part.
        """
        self.config, self.seed, self.device = config, seed, device
        self.data = data.to(device).resized(config.model.image_size)
        images = len(data.train_images)
        self.steps_per_epoch = images // config.batch.batch_size
        if not self.steps_per_epoch:
            raise ConfigError(f"batch_size {config.batch.batch_size} is more than the {images:,} training images")
        self.model = patch_mlp.build(config.model, seed).to(device)
        self.optimizer = make_optimizer(self.model, config.optimizer)
        decay = config.optimizer.ema_decay
        self.average = MovingAverage(self.model, decay) if decay else None
        self.generator = torch.Generator(device).manual_seed(derived_seed(seed, 0))
        self.autocast = _uses_bfloat16(config, device)
        self.history: list[Epoch] = []
        self.step = 0
        self.seconds = 0.0
        self._order = torch.empty(0)
        self._order_epoch = 0
        self._sums = _Sums.zeros(device)
        self._launched_at: float | None = None
        self._done: torch.cuda.Event | None = None
        self._whole = False

    @property
    def finished(self) -> bool:
        """True when all epochs have been read."""
        return len(self.history) == self.config.train.epochs

    @property
    def evaluated_model(self) -> patch_mlp.PatchMLP:
        """The model that is validated, and kept in the end: the moving average if there is one."""
        return self.average.model if self.average else self.model

    @property
    def images_trained(self) -> int:
        return self.step * self.config.batch.batch_size

    def epochs(self, stop: Callable[[], bool] = never) -> Iterator[Epoch]:
        """Launch, wait and read until finished, or until `stop()` is true before some step.

        Raises:
            TrainingDivergedError: a loss is no longer finite.
        """
        while not self.finished:
            self.launch(stop)
            if not self._whole:
                return
            yield self.read()

    def launch(self, stop: Callable[[], bool] = never) -> None:
        """Start the next epoch, or the rest of one that was stopped; `stop` is asked before each step and each
        validation batch.

        After a stop `ready()` stays False, and `state_dict()` says where to go on.
        """
        self._launched_at = time.perf_counter()
        epoch = len(self.history) + 1
        if self._order_epoch != epoch:
            shuffle = torch.Generator(self.device).manual_seed(derived_seed(self.seed, epoch))
            self._order = torch.randperm(len(self.data.train_images), generator=shuffle, device=self.device)
            self._order_epoch = epoch
        self.model.train()
        while self.step < epoch * self.steps_per_epoch:
            if stop():
                self._count_seconds()
                return
            loss = self._train_step(self.step % self.steps_per_epoch)
            if self.device.type == "cpu" and not loss.isfinite():  # free to ask here, a wait on a GPU
                break
        else:
            if not self._validate(stop):
                self._count_seconds()
                return
        self._whole = True
        if self.device.type == "cuda":
            self._done = torch.cuda.Event()
            self._done.record()

    def ready(self) -> bool:
        """Return whether a launched epoch is over and can be read without waiting."""
        return self._whole and (self._done is None or self._done.query())

    def read(self) -> Epoch:
        """Wait for the epoch launched and return what it came to.

        Raises:
            TrainingDivergedError: a loss of it is not finite.
        """
        sums = self._sums.values.tolist()  # the one wait of an epoch
        self._whole = False
        self._count_seconds()
        train_images = self.steps_per_epoch * self.config.batch.batch_size
        val_images = len(self.data.val_images)
        epoch = Epoch(
            number=len(self.history) + 1,
            train_loss=sums[0] / self.steps_per_epoch,
            train_accuracy=sums[1] / train_images,
            val_loss=sums[2] / val_images if val_images else None,
            val_accuracy=sums[3] / val_images if val_images else None,
        )
        if not np.isfinite(sums).all():
            raise TrainingDivergedError(f"the loss is not finite in epoch {epoch.number}, by step {self.step:,}")
        self._sums.values.zero_()
        self.history.append(epoch)
        return epoch

    def _train_step(self, step_in_epoch: int) -> Tensor:
        config = self.config
        lr = lr_at(
            self.step,
            config.schedule,
            peak=config.optimizer.learning_rate,
            total_steps=config.train.epochs * self.steps_per_epoch,
            steps_per_epoch=self.steps_per_epoch,
            losses=[epoch.plateau_loss for epoch in self.history],
        )
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        size = config.batch.batch_size
        batch = self._order[step_in_epoch * size : (step_in_epoch + 1) * size]
        loss, correct = self._loss(self.data.train_images[batch], self.data.train_labels[batch])
        self.optimizer.zero_grad()
        loss.backward()
        if config.optimizer.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.optimizer.clip_norm)
        self.optimizer.step()
        if self.average:
            self.average.update(self.model, self.step)
        self._sums.add_train(loss, correct)
        self.step += 1
        return loss

    def _loss(self, images_BHW: Tensor, labels_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean loss of a batch of uint8 images, and how many were right."""
        config = self.config
        x_BHW = augment(images_BHW.float().div_(255), config.augment, self.generator)
        partners_B = share_B = None
        if config.augment.mixup:
            x_BHW, partners_B, share_B = mixup(x_BHW, config.augment.mixup, self.generator)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            logits = self.model(self._normalised(x_BHW), self.generator)
        smoothing = config.batch.label_smoothing
        losses_B = F.cross_entropy(logits.float(), labels_B, label_smoothing=smoothing, reduction="none")
        if partners_B is not None and share_B is not None:
            other_labels_B = labels_B[partners_B]
            others_B = F.cross_entropy(logits.float(), other_labels_B, label_smoothing=smoothing, reduction="none")
            losses_B = share_B * losses_B + (1 - share_B) * others_B
            labels_B = torch.where(share_B >= 0.5, labels_B, other_labels_B)
        return losses_B.mean(), (logits.argmax(dim=1) == labels_B).sum()

    @torch.no_grad()
    def _validate(self, stop: Callable[[], bool]) -> bool:
        """Add up the validation images; return False, with nothing added, if `stop()` was true in between."""
        model, data = self.evaluated_model, self.data
        if not len(data.val_images):
            return True
        model.eval()
        for images_BHW, labels_B in zip(
            data.val_images.split(VAL_BATCH_SIZE), data.val_labels.split(VAL_BATCH_SIZE), strict=True
        ):
            if stop():
                self._sums.forget_val()
                return False
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
                logits = model(self._normalised(images_BHW.float().div_(255)))
            loss = F.cross_entropy(logits.float(), labels_B, reduction="sum")
            self._sums.add_val(loss, (logits.argmax(dim=1) == labels_B).sum())
        return True

    def _normalised(self, images_BHW: Tensor) -> Tensor:
        return (images_BHW - self.data.mean) / self.data.std

    def _count_seconds(self) -> None:
        if self._launched_at is not None:
            self.seconds += time.perf_counter() - self._launched_at
            self._launched_at = None

    def fingerprint(self) -> dict[str, Any]:
        """Return what a checkpoint must share with a training to be its past."""
        return {
            "config": self.config.digest,
            "data": self.data.digest,
            "seed": self.seed,
            "device": self.device.type,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on from this step, between two steps or two epochs."""
        return {
            "fingerprint": self.fingerprint(),
            "model": self.model.state_dict(),
            "average": self.average.model.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "sums": self._sums.values,
            "step": self.step,
            "seconds": self.seconds,
            "history": [asdict(epoch) for epoch in self.history],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken; on the CPU the rest is bit for bit what it would have been.

        Raises:
            ConfigError: `state` is of another configuration, seed, data set or kind of device.
        """
        if state["fingerprint"] != self.fingerprint():
            raise ConfigError(f"the checkpoint is of {state['fingerprint']}, this training is {self.fingerprint()}")
        self.model.load_state_dict(state["model"])
        if self.average:
            self.average.model.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"].cpu())
        self._sums.values.copy_(state["sums"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.history = [Epoch(**epoch) for epoch in state["history"]]


@dataclass(frozen=True)
class _Sums:
    """Train loss, train correct, validation loss, validation correct of the current epoch, on the device."""

    values: Tensor

    @classmethod
    def zeros(cls, device: torch.device) -> "_Sums":
        return cls(torch.zeros(4, dtype=torch.float64, device=device))

    def add_train(self, loss: Tensor, correct: Tensor) -> None:
        self.values[0:2] += torch.stack((loss.detach().double(), correct.double()))

    def forget_val(self) -> None:
        self.values[2:4] = 0

    def add_val(self, loss: Tensor, correct: Tensor) -> None:
        self.values[2:4] += torch.stack((loss.double(), correct.double()))


def _uses_bfloat16(config: TrialConfig, device: torch.device) -> bool:
    if config.train.precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return config.train.precision == "bfloat16"
