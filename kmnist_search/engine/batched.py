"""Train one configuration several times as one batched training. Knows nothing of studies, trials or databases."""

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

    Several replicas need the fused way, which computes their products as batched products; each comes to what its
    training alone would, but for the rounding of other products.

    Attributes:
        replicas: in the order of the seeds.
        diverged: of which replicas a loss was not finite; they are computed on, but not read any more.
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
        """Build models and optimizers on `device`, for as many data as seeds, which have equally many images.

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
        """True when all epochs are over, of all replicas that did not diverge."""
        return all(replica.finished or index in self.diverged for index, replica in enumerate(self.replicas))

    def advance(self) -> bool:
        """Take the epoch at hand a little further, without waiting; return whether it is over and can be read."""
        return self._runner.advance(self.replicas)

    def read(self) -> list[Epoch | None]:
        """Return what the epoch that is over came to for each replica, None for those that diverged."""
        return [
            self._ended(replica, sums) for replica, sums in zip(self.replicas, self._runner.take_sums(), strict=True)
        ]

    def _ended(self, replica: Replica, sums: Sequence[float]) -> Epoch | None:
        if replica.index in self.diverged:
            return None
        try:
            return replica.end_epoch(sums)
        except TrainingDivergedError:
            self.diverged.add(replica.index)
            replica.position = 0
            return None

    def evaluated_model(self, index: int) -> Model:
        """Return the model of a replica that is validated, and kept in the end."""
        with self._runner.on_stream():
            return self.replicas[index].evaluated_model

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on from this step."""
        with self._runner.saving():
            return {"members": [replica.state_dict() for replica in self.replicas], "diverged": sorted(self.diverged)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken.

        Raises:
            ConfigError: `state` is of other seeds, or of another configuration, data set, kind of device or program.
        """
        if len(state["members"]) != len(self.replicas):
            raise ConfigError(f"the checkpoint is of {len(state['replicas'])} trainings, not of {len(self.replicas)}")
        pairs = list(zip(self.replicas, state["members"], strict=True))
        for replica, replica_state in pairs:
            replica.check(replica_state)
        with self._runner.loading():
            for replica, replica_state in pairs:
                replica.load_state_dict(replica_state)
        self.diverged = set(state["diverged"])
