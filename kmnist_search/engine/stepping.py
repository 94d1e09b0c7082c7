"""Takes the steps of an epoch a few at a time, so that trainings can share a thread; eagerly without CUDA graphs."""

from typing import Protocol

from kmnist_search.engine.program import EpochPlan, Program


class Stepping(Protocol):
    """Takes the steps of a program's epochs.

    Attributes:
        position: steps of the epoch taken so far; on a GPU, queued so far.
    """

    position: int

    def begin(self, plans: list[EpochPlan], position: int) -> None:
        """Begin an epoch, or resume it after `position` steps."""

    def advance(self) -> bool:
        """Take or queue some steps of the epoch, without waiting; return whether the epoch is done."""

    def wait(self) -> None:
        """Wait for the queued work."""

    def reset(self) -> None:
        """Discard what was prepared for the program's tensors, because some of them may have been replaced."""


class EagerStepping:
    """One step or one validation batch per call, for CPUs, and for GPUs on which CUDA graphs fail."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.position = self._validated = 0

    def begin(self, plans: list[EpochPlan], position: int) -> None:
        self.program.begin(plans)
        self.program.advance_position(position)
        self.position, self._validated = position, 0

    def advance(self) -> bool:
        program = self.program
        if not program.sums_S4.isfinite().all(dim=1).any():
            return True  # all replicas have diverged
        if self.position < program.steps_per_epoch:
            program.train_step()
            program.advance_position(1)
            self.position += 1
        elif self._validated < program.val_batches:
            program.val_batch(self._validated)
            self._validated += 1
        return self.position == program.steps_per_epoch and self._validated == program.val_batches

    def wait(self) -> None:
        return

    def reset(self) -> None:
        return
