"""Saved models for tests."""

from pathlib import Path
from typing import Any

from kmnist_search.model import Model
from kmnist_search.saved_model.folder import write
from kmnist_search.saved_model.info import ModelInfo
from kmnist_search.saved_model.packed import pack


def save_model(folder: Path, model: Model, **facts: Any) -> ModelInfo:
    """Write a model to a folder, with the facts that `pack` takes."""
    packed = pack(model, **facts)
    write(folder, packed)
    return packed.info
