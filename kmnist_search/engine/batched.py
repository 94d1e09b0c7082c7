"""Train one configuration several times as one batched training. Knows nothing of studies, trials or databases."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from kmnist_search.config import TrialConfig
from kmnist_search.data.search_data import SearchData
from kmnist_search.engine.backends import Way, program_for
from kmnist_search.engine.drive import Drive
from kmnist_search.engine.member import Epoch, Member
from kmnist_search.errors import ConfigError, TrainingDivergedError
from kmnist_search.model import Model


class BatchedTraining:
    """Trainings that differ in their seeds and in which images they see: `advance()` until True, then `read()`.

    Several members need the fused way, which computes their products as batched products; each comes to what its
    training alone would, but for the rounding of other products.

    Attributes:
        members: in the order of the seeds.
        diverged: of which members a loss was not finite; they are computed on, but not read any more.
    """

    def __init__(
        self,
        config: TrialConfig,
        datas: Sequence[SearchData],
        *,
        seeds: Sequence[int],
        device: torch.device,
        way: Way = "auto",
    ) -> None:
        """Build models and optimizers on `device`, for as many data as seeds, which have equally many images.

        Raises:
            ConfigError: a batch is larger than the training part.
        """
        self.config, self.device = config, device
        self._drive = Drive(device, partial(program_for, config, datas, seeds=seeds, device=device, way=way))
        program = self._drive.program
        self.members = [
            Member(config, seed=seed, device=device, program=program, index=index) for index, seed in enumerate(seeds)
        ]
        self.diverged: set[int] = set()

    @property
    def finished(self) -> bool:
        """True when all epochs are over, of all members that did not diverge."""
        return all(member.finished or index in self.diverged for index, member in enumerate(self.members))

    def advance(self) -> bool:
        """Take the epoch at hand a little further, without waiting; return whether it is over and can be read."""
        return self._drive.advance(self.members)

    def read(self) -> list[Epoch | None]:
        """Return what the epoch that is over came to for each member, None for those that diverged."""
        return [self._ended(member, sums) for member, sums in zip(self.members, self._drive.take_sums(), strict=True)]

    def _ended(self, member: Member, sums: Sequence[float]) -> Epoch | None:
        if member.index in self.diverged:
            return None
        try:
            return member.end_epoch(sums)
        except TrainingDivergedError:
            self.diverged.add(member.index)
            member.position = 0
            return None

    def evaluated_model(self, index: int) -> Model:
        """Return the model of a member that is validated, and kept in the end."""
        with self._drive.here():
            return self.members[index].evaluated_model

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on from this step."""
        with self._drive.saving():
            return {"members": [member.state_dict() for member in self.members], "diverged": sorted(self.diverged)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken.

        Raises:
            ConfigError: `state` is of other seeds, or of another configuration, data set, kind of device or program.
        """
        if len(state["members"]) != len(self.members):
            raise ConfigError(f"the checkpoint is of {len(state['members'])} trainings, not of {len(self.members)}")
        pairs = list(zip(self.members, state["members"], strict=True))
        for member, of_member in pairs:
            member.check(of_member)
        with self._drive.loading():
            for member, of_member in pairs:
                member.load_state_dict(of_member)
        self.diverged = set(state["diverged"])
