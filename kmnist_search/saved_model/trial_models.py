"""The saved models of a trial, in the folder of its checkpoints.

Each trial has two: the model after its last epoch, and after its best epoch on the validation images.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from kmnist_search.config import DataConfig
from kmnist_search.engine.training import Training
from kmnist_search.errors import ModelError
from kmnist_search.saved_model.folder import load_model, save_model
from kmnist_search.saved_model.info import recipe_digest
from kmnist_search.saved_model.model import SavedModel

#: The trial attribute with the best epoch and the SHA-256 of each model's weights.
MODELS_KEY = "models"

Which = Literal["last", "best"]


def keep(training: Training, data: DataConfig, parent: Path, number: int) -> dict[str, Any]:
    """Save both models of trial `number`, whose training is over, replacing older ones; return its attribute.

    Raises:
        ModelError: they cannot be saved.
    """
    assert training.best is not None
    models = {"last": training.evaluated_model, "best": training.best_model()}
    kept: dict[str, Any] = {"best_epoch": training.best.number}
    for which, model in models.items():
        folder = _folder(parent, number, which)
        shutil.rmtree(folder, ignore_errors=True)  # of an attempt that died before it reported its end
        info = save_model(
            folder,
            model,
            dataset=data.dataset,
            mean=training.data.mean,
            std=training.data.std,
            config_digest=training.config.digest,
            recipe_digest=recipe_digest(training.config, training.data.digest),
            seed=training.seed,
        )
        kept[which] = info.weights_sha256
    return kept


def find(kept: Mapping[str, Any], parent: Path, number: int, which: Which) -> SavedModel | None:
    """Return a model of trial `number` if the same weights are still there, otherwise None."""
    try:
        model = load_model(_folder(parent, number, which))
    except ModelError:
        return None
    return model if model.info.weights_sha256 == kept[which] else None


def _folder(parent: Path, number: int, which: str) -> Path:
    return parent / f"trial-{number}-{which}"
