"""A batch of trainings: one configuration with several seeds, computed together as the replicas of one program."""

from collections.abc import Sequence
from functools import partial
from weakref import ref

import torch

from kmnist_search.config import TrialConfig
from kmnist_search.data.search_data import SearchData
from kmnist_search.engine.backends import Backend, program_for
from kmnist_search.engine.program_runner import ProgramRunner
from kmnist_search.engine.replica import Replica


class Batch:
    """The program that some trainings share. Each of them advances it and reads its own results, as if it were alone.

    An epoch ends for all at once. The next one begins when each has read its results, or has left. Several trainings
    need the Triton backend, which computes their products as batched products. Each gives the results of a training
    alone, except for rounding.

    Attributes:
        runner: runs the program.
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
            config: of all trainings.
            datasets: one for each seed, with equally many images.
            seeds: decide weights, order and augmentation of each training.
            device: where the trainings are computed.
            backend: how they are computed.

        Raises:
            ConfigError: a batch of images is larger than the training part.
        """
        self.runner = ProgramRunner(
            device, partial(program_for, config, datasets, seeds=seeds, device=device, backend=backend)
        )
        self._replicas: list[ref[Replica]] = []  # who shares a batch keeps all its trainings
        self._unread: set[int] = set()  # replicas whose results of the ended epoch were not read
        self._sums: list[list[float]] | None = None  # of the ended epoch; None before the first is read
        self._gone: set[int] = set()
        self._error: Exception | None = None

    @property
    def size(self) -> int:
        """The number of replicas that were added."""
        return len(self._replicas)

    def add(self, replica: Replica) -> None:
        """Add the next replica of the program; each must be added before the first step."""
        self._replicas.append(ref(replica))

    def advance(self, index: int) -> bool:
        """Advance the current epoch a little, without waiting; return whether replica `index` can read its results.

        Raises:
            Exception: what a step raised, to each of the trainings.
        """
        if self._error is not None:
            raise self._error
        if not self._unread:
            try:
                if self.runner.advance([replica for known in self._replicas if (replica := known())]):
                    self._unread, self._sums = set(range(self.size)) - self._gone, None
            except Exception as error:
                self._error = error
                raise
        return index in self._unread

    def take_sums(self, index: int) -> list[float]:
        """Return the sums of the ended epoch of replica `index`, see `Program.sums_S4`; the first reader waits."""
        if self._sums is None:
            self._sums = self.runner.take_sums()
        self._unread.discard(index)
        return self._sums[index]

    def leave(self, index: int) -> None:
        """Let the others go on without replica `index`, which is still computed but no longer read."""
        self._gone.add(index)
        self._unread.discard(index)

    def forget(self) -> None:
        """Forget what was not read: the replicas have another state now."""
        self._unread.clear()
