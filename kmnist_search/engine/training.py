"""The training of one configuration with one seed, step by step, so that it can be checkpointed and resumed.

A program computes the steps, a stepping takes them, and a replica keeps the results; a training combines the three.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kmnist_search.config import TrialConfig
from kmnist_search.data.search_data import SearchData
from kmnist_search.engine.backends import Backend
from kmnist_search.engine.batch import Batch
from kmnist_search.engine.replica import Epoch, Replica
from kmnist_search.model import Model, model_of

#: Seconds that the driver of a single training sleeps while the GPU has enough queued work.
POLL_SECONDS = 0.001


@dataclass(frozen=True, eq=False, kw_only=True)
class BestEpoch:
    """The first epoch with the highest validation accuracy so far, and the model's weights after it, on the CPU."""

    number: int
    val_accuracy: float
    weights: Mapping[str, Tensor]


class Training(Replica):
    """A training: call `advance()` until it returns True, then `read()` the epoch, and repeat until `finished`.

    `advance` takes one step on the CPU; on a GPU it queues some and returns, so that one thread can drive several
    trainings. Nothing is read back from a GPU before `read`. An epoch skips the images that remain after its last
    whole batch.

    Attributes:
        best: None before the first epoch has ended, and without `keeps_best`.
    """

    def __init__(
        self,
        config: TrialConfig,
        data: SearchData,
        *,
        seed: int,
        device: torch.device,
        backend: Backend = "auto",
        keeps_best: bool = False,
        batch: Batch | None = None,
    ) -> None:
        """Build model and optimizer on `device`.

        Args:
            config: what to train, and how.
            data: the images.
            seed: decides weights, order and augmentation.
            device: where the training is computed.
            backend: how it is computed.
            keeps_best: also keep the weights of the best epoch; needs a validation part.
            batch: computes it together with others, see `trainings_together`; None for a training alone.

        Raises:
            ConfigError: a batch is larger than the training part.
        """
        self._batch = batch or Batch(config, [data], seeds=[seed], device=device, backend=backend)
        self._runner = self._batch.runner
        super().__init__(config, seed=seed, device=device, program=self._runner.program, index=self._batch.size)
        self._batch.add(self)
        self.keeps_best = keeps_best
        self.best: BestEpoch | None = None

    @property
    def evaluated_model(self) -> Model:
        with self._runner.on_stream():
            return super().evaluated_model

    def best_model(self) -> Model:
        """Return the model after the best epoch."""
        assert self.best is not None
        model = model_of(self.config.model)
        model.load_state_dict(self.best.weights)
        return model

    def val_probabilities(self) -> NDArray[np.float32] | None:
        with self._runner.on_stream():
            return super().val_probabilities()

    def epochs(self, stop: Callable[[], bool] = lambda: False) -> Iterator[Epoch]:
        """Advance and read until finished, or until `stop()` returns True; it is called before each advance.

        Raises:
            TrainingDivergedError: a loss is no longer finite.
        """
        while not self.finished:
            if stop():
                return
            if self.advance():
                yield self.read()
            elif self.device.type == "cuda":
                time.sleep(POLL_SECONDS)

    def advance(self) -> bool:
        """Advance the current epoch a little, without waiting; return whether it is over and can be read.

        Between two calls `state_dict()` returns a state to resume from.
        """
        return self._batch.advance(self.index)

    def read(self) -> Epoch:
        """Return the results of the epoch that `advance` has ended.

        Raises:
            TrainingDivergedError: a loss is not finite.
        """
        epoch = self.end_epoch(self._batch.take_sums(self.index))
        if self.keeps_best:
            self._keep_if_best(epoch)
        return epoch

    def leave(self) -> None:
        """Take no further part: those that are computed together with this training go on without it."""
        self._batch.leave(self.index)

    def _keep_if_best(self, epoch: Epoch) -> None:
        accuracy = epoch.val_accuracy
        if accuracy is not None and (self.best is None or accuracy > self.best.val_accuracy):
            with self._runner.on_stream():
                weights = {name: tensor.cpu().clone() for name, tensor in super().evaluated_model.state_dict().items()}
            self.best = BestEpoch(number=epoch.number, val_accuracy=accuracy, weights=weights)

    def state_dict(self) -> dict[str, Any]:
        with self._runner.saving():
            state = super().state_dict()
        # Not `asdict`, which would copy the weights.
        return {**state, "best": vars(self.best) if self.best else None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        with self._runner.loading():
            super().load_state_dict(state)
        self._batch.forget()
        best = state.get("best")
        self.best = None
        if best is not None:
            weights = {name: tensor.cpu() for name, tensor in best["weights"].items()}
            self.best = BestEpoch(**{**best, "weights": weights})


def trainings_together(
    config: TrialConfig,
    datasets: Sequence[SearchData],
    *,
    seeds: Sequence[int],
    device: torch.device,
    backend: Backend = "auto",
) -> list[Training]:
    """Return trainings of one configuration that are computed together; the arguments are those of `Batch`."""
    batch = Batch(config, datasets, seeds=seeds, device=device, backend=backend)
    pairs = zip(datasets, seeds, strict=True)
    return [Training(config, data, seed=seed, device=device, batch=batch) for data, seed in pairs]
