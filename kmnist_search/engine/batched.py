"""Batched training: one configuration is trained with several seeds at once."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from kmnist_search.config import TrialConfig
from kmnist_search.data.search_data import SearchData
from kmnist_search.engine.backends import Backend, program_for
from kmnist_search.engine.program_runner import ProgramRunner
from kmnist_search.engine.replica import Epoch, Replica
from kmnist_search.errors import ConfigError, TrainingDivergedError
from kmnist_search.model import Model


class BatchedTraining:
    """Trainings that differ in their seeds and in which images they see: `advance()` until True, then `read()`.

    Several replicas need the Triton backend, which computes their products as batched products. Each replica gives the
    results of a training alone, except for rounding.

    Attributes:
        replicas: in the order of the seeds.
        diverged: the replicas with a loss that was not finite. They are still computed, but no longer read.
    """

    def __init__(
        self,
        config: TrialConfig,
        datasets: Sequence[SearchData],
        *,
        seeds: Sequence[int],
        device: torch.device,
        backend: Backend = "auto",
    ) -> None:
        """Build models and optimizers on `device`.

        Args:
            config: of all replicas.
            datasets: one for each seed, with equally many images.
            seeds: decide weights, order and augmentation of each replica.
            device: where the trainings are computed.
            backend: how they are computed.

        Raises:
            ConfigError: a batch is larger than the training part.
        """
        self.config, self.device = config, device
        self._runner = ProgramRunner(
            device, partial(program_for, config, datasets, seeds=seeds, device=device, backend=backend)
        )
        program = self._runner.program
        self.replicas = [
            Replica(config, seed=seed, device=device, program=program, index=index) for index, seed in enumerate(seeds)
        ]
        self.diverged: set[int] = set()

    @property
    def finished(self) -> bool:
        """True when every replica has ended its last epoch or diverged."""
        return all(replica.finished or index in self.diverged for index, replica in enumerate(self.replicas))

    def advance(self) -> bool:
        """Advance the current epoch a little, without waiting; return whether it is over and can be read."""
        return self._runner.advance(self.replicas)

    def read(self) -> list[Epoch | None]:
        """Return the results of the ended epoch for each replica, None for those that diverged."""
        pairs = zip(self.replicas, self._runner.take_sums(), strict=True)
        return [self._end_epoch(replica, sums) for replica, sums in pairs]

    def _end_epoch(self, replica: Replica, sums: Sequence[float]) -> Epoch | None:
        if replica.index in self.diverged:
            return None
        try:
            return replica.end_epoch(sums)
        except TrainingDivergedError:
            self.diverged.add(replica.index)
            replica.position = 0
            return None

    def evaluated_model(self, index: int) -> Model:
        """Return the model of a replica that is validated and saved."""
        with self._runner.on_stream():
            return self.replicas[index].evaluated_model

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to resume from this step."""
        with self._runner.saving():
            return {"members": [replica.state_dict() for replica in self.replicas], "diverged": sorted(self.diverged)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from `state`.

        Raises:
            ConfigError: `state` is of other seeds, or of another configuration, data set, kind of device or backend.
        """
        if len(state["members"]) != len(self.replicas):
            raise ConfigError(f"the checkpoint is of {len(state['members'])} trainings, not of {len(self.replicas)}")
        pairs = list(zip(self.replicas, state["members"], strict=True))
        for replica, replica_state in pairs:
            replica.check(replica_state)
        with self._runner.loading():
            for replica, replica_state in pairs:
                replica.load_state_dict(replica_state)
        self.diverged = set(state["diverged"])
