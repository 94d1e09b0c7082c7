"""Checkpoints of trainings as files. Knows nothing of trials.

A checkpoint is written whole or not at all, and read without running code from it.
"""

import copy
import pickle
import zipfile
from pathlib import Path
from typing import Any, Protocol

import torch

from kmnist_search.errors import ConfigError
from kmnist_search.host.files import whole_file


class Resumable(Protocol):
    """What has checkpoints: a training, or several in a stack."""

    device: torch.device

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on from here."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken; ConfigError, and nothing changed, if it is of something else."""


#: What a damaged file raises beside the ordinary errors.
UNREADABLE = (zipfile.BadZipFile, pickle.UnpicklingError)


def save(training: Resumable, path: Path) -> None:
    """Write the training's state to `path`, replacing what is there in one move.

    Raises:
        OSError: the folder cannot be written; what was at `path` is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # An open file: torch.save would write the name of a path into the file.
    with whole_file(path) as part, part.open("wb") as file:
        torch.save(training.state_dict(), file)


def resume(training: Resumable, path: Path) -> str | None:
    """Bring a new training to where the checkpoint at `path` was taken.

    Returns:
        None when that is done; otherwise why not, and `training` is as it was.
    """
    if not path.exists():
        return "there is no checkpoint"
    before = copy.deepcopy(training.state_dict())
    try:
        _check(path)
        training.load_state_dict(torch.load(path, map_location=training.device, weights_only=True))
    except ConfigError as error:
        return str(error)
    except (OSError, RuntimeError, LookupError, TypeError, ValueError, EOFError, *UNREADABLE) as error:
        training.load_state_dict(before)
        return f"{path} is damaged: {error}"
    return None


def _check(path: Path) -> None:
    """Compare the checksums in the file, which torch writes but does not read."""
    with zipfile.ZipFile(path) as archive:
        if broken := archive.testzip():
            raise zipfile.BadZipFile(f"wrong checksum of {broken}")
