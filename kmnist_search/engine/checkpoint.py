"""Checkpoint files of trainings.

A checkpoint is written whole or not at all. Reading it runs no code from it.
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
    """Anything that has checkpoints, such as a training."""

    device: torch.device

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to resume."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from `state`; raise ConfigError, and change nothing, if it is of another training."""


#: What a damaged file raises, in addition to the ordinary errors.
UNREADABLE = (zipfile.BadZipFile, pickle.UnpicklingError)


def save(training: Resumable, path: Path) -> None:
    """Write the training's state to `path`, which replaces a former file in one step.

    Raises:
        OSError: the folder cannot be written; a former file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # An open file: torch.save would write the name of a path into the file.
    with whole_file(path) as part, part.open("wb") as file:
        torch.save(training.state_dict(), file)


def resume(training: Resumable, path: Path) -> str | None:
    """Resume a new training from the checkpoint at `path`.

    Returns:
        None if it is resumed; else the reason why not, and `training` is unchanged.
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
    """Check the checksums in the file, which torch writes but does not check."""
    with zipfile.ZipFile(path) as archive:
        if broken := archive.testzip():
            raise zipfile.BadZipFile(f"wrong checksum of {broken}")
