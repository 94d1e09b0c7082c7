"""Train one configuration with one seed. Knows nothing of studies, trials or databases.

What a step computes is a program's, when it is taken a pace's, what epochs come to a member's: here they are one.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from kmnist_search.config import TrialConfig
from kmnist_search.data.search_data import SearchData
from kmnist_search.engine.drive import Drive
from kmnist_search.engine.member import Epoch, Member
from kmnist_search.engine.ways import Way, program_for
from kmnist_search.model import PatchMLP

#: How long who drives one training alone sleeps when a GPU needs nothing from it.
POLL_SECONDS = 0.001


def never() -> bool:
    return False


class Training(Member):
    """One training of a PatchMLP: `advance()` until it returns True, then `read()` the epoch, until `finished`.

    `advance` takes one step on the CPU; on a GPU it queues some and returns, so that one thread can drive several
    trainings. Nothing is read back from a GPU before `read`. The images left over after the last whole batch of an
    epoch are not trained on in that epoch.
    """

    def __init__(
        self, config: TrialConfig, data: SearchData, *, seed: int, device: torch.device, way: Way = "auto"
    ) -> None:
        """Build model and optimizer on `device`; `seed` decides weights, order and augmentation.

        Raises:
            ConfigError: a batch is larger than the training part.
        """
        self._drive = Drive(device, partial(program_for, config, [data], seeds=[seed], device=device, way=way))
        super().__init__(config, seed=seed, device=device, program=self._drive.program, index=0)

    @property
    def evaluated_model(self) -> PatchMLP:
        with self._drive.here():
            return super().evaluated_model

    def epochs(self, stop: Callable[[], bool] = never) -> Iterator[Epoch]:
        """Advance and read until finished, or until `stop()` is true before some advance.

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
        """Take the epoch at hand a little further, without waiting; return whether it is over and can be read.

        Between two advances `state_dict()` says where to go on.
        """
        return self._drive.advance([self])

    def read(self) -> Epoch:
        """Return what the epoch came to of which `advance` said that it is over.

        Raises:
            TrainingDivergedError: a loss of it is not finite.
        """
        (sums,) = self._drive.take_sums()
        return self.end_epoch(sums)

    def state_dict(self) -> dict[str, Any]:
        with self._drive.saving():
            return super().state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        with self._drive.loading():
            super().load_state_dict(state)
