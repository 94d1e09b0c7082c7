"""The checkpoints of a trial: one file for each attempt.

A worker that was wrongly taken for dead may still write the file of its own attempt, but never that of its successor.
"""

from pathlib import Path

from kmnist_search.engine import checkpoint
from kmnist_search.engine.training import Training
from kmnist_search.host.files import discard


class Checkpoints:
    """The checkpoints of trial `number`, as attempt `attempt` (from 1) sees them."""

    def __init__(self, folder: Path, number: int, attempt: int) -> None:
        self.folder, self.number, self.attempt = folder, number, attempt

    def save(self, training: Training) -> None:
        """Save a checkpoint of this attempt.

        Raises:
            OSError: the folder cannot be written.
        """
        checkpoint.save(training, self._path(self.attempt))

    def resume(self, training: Training) -> None:
        """Resume a new training from the latest usable checkpoint of any attempt, if there is one."""
        for attempt in range(self.attempt, 0, -1):
            if checkpoint.resume(training, self._path(attempt)) is None:
                return

    def discard(self, *, earlier: bool) -> None:
        """Remove the checkpoint of this attempt, and of `earlier` ones, half-written files included."""
        for attempt in range(1 if earlier else self.attempt, self.attempt + 1):
            discard(self._path(attempt))

    def discard_earlier(self) -> None:
        """Remove the checkpoints of the attempts before this one."""
        for attempt in range(1, self.attempt):
            discard(self._path(attempt))

    def _path(self, attempt: int) -> Path:
        return self.folder / f"{self.number}-{attempt}.pt"
