"""The saved models of a trial, in the folder of its checkpoints.

Each trial has two: the model after its last epoch, and after its best epoch on the validation images.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from kmnist_search.config import Dataset
from kmnist_search.engine.training import Training
from kmnist_search.saved_model.folder import find_model, save_trained
from kmnist_search.saved_model.model import SavedModel

#: The trial attribute with the best epoch and the SHA-256 of each model's weights.
MODELS_KEY = "models"

Which = Literal["last", "best"]


def keep(training: Training, dataset: Dataset, parent: Path, number: int) -> dict[str, Any]:
    """Save both models of trial `number`, whose training is over, replacing older ones; return its attribute.

    Raises:
        ModelError: they cannot be saved.
    """
    assert training.best is not None
    kept: dict[str, Any] = {"best_epoch": training.best.number}
    for which, model in (("last", training.evaluated_model), ("best", training.best_model())):
        kept[which] = save_trained(_folder(parent, number, which), model, training, dataset).weights_sha256
    return kept


def find(kept: Mapping[str, Any], parent: Path, number: int, which: Which) -> SavedModel | None:
    """Return a model of trial `number` if the same weights are still there, otherwise None."""
    return find_model(_folder(parent, number, which), kept[which])


def _folder(parent: Path, number: int, which: str) -> Path:
    return parent / f"trial-{number}-{which}"
