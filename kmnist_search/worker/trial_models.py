"""The saved models of a trial, in the artifact store: whoever reads the same store finds them, on any machine."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from io import BytesIO
from typing import Any

from optuna.artifacts import ArtifactMeta
from optuna.artifacts.exceptions import ArtifactNotFound

from kmnist_search.config import Dataset
from kmnist_search.engine.training import Training
from kmnist_search.errors import ModelError
from kmnist_search.optuna_internals import ARTIFACT_KEY_PREFIX, ArtifactStore
from kmnist_search.saved_model.info import ModelInfo
from kmnist_search.saved_model.packed import PackedModel, pack_trained
from kmnist_search.study.artifacts import WEIGHTS_TYPE, remove_all
from kmnist_search.study_file.schema import Which

#: The trial attribute with the artifact and the description of each saved model.
MODELS_KEY = "models"


class TrialModels:
    """The models of trials in one artifact store."""

    def __init__(self, store: ArtifactStore) -> None:
        self.store = store

    def keep(self, training: Training, which: Which, dataset: Dataset, artifact_id: str) -> dict[str, Any]:
        """Store a model of a training that is over; return its entry for the trial's attribute.

        Raises:
            ModelError: it cannot be stored.
        """
        model = training.evaluated_model if which == "last" else training.best_model()
        packed = pack_trained(model, training, dataset)
        try:
            self.store.write(artifact_id, BytesIO(packed.weights))
        except Exception as error:  # each store has its own errors
            raise ModelError(f"the model cannot be written to the artifact store: {error}") from None
        epoch = training.best.number if which == "best" and training.best else len(training.history)
        return {"artifact": artifact_id, "epoch": epoch, "info": packed.info.model_dump(mode="json")}

    def remove(self, artifact_ids: Sequence[str]) -> None:
        """Remove models that no trial needs; those that are gone already are no error."""
        remove_all(self.store, artifact_ids)

    def find(self, entry: Mapping[str, Any]) -> PackedModel | None:
        """Return a model by its entry in a trial's attribute; None if it is gone or damaged."""
        try:
            with self.store.open_reader(entry["artifact"]) as file:
                packed = PackedModel(info=ModelInfo.model_validate(entry["info"]), weights=file.read())
            packed.unpacked()
        except (ArtifactNotFound, ModelError):
            return None
        return packed


def artifact_attributes(models: Mapping[str, Mapping[str, Any]], number: int) -> Iterator[tuple[str, str]]:
    """Yield the attributes by which the dashboard lists the models of trial `number`, and by which they are deleted."""
    for which, entry in models.items():
        meta = ArtifactMeta(
            artifact_id=entry["artifact"],
            filename=f"trial-{number}-{which}.safetensors",
            mimetype=WEIGHTS_TYPE,
            encoding=None,
        )
        yield ARTIFACT_KEY_PREFIX + entry["artifact"], json.dumps(asdict(meta))
