"""The final models of a study: saved beside its checkpoints, and tested once each."""

import shutil
from dataclasses import asdict
from pathlib import Path

from kmnist_search.config import Dataset
from kmnist_search.data.search_data import SearchData
from kmnist_search.data.test_set import SealedSet
from kmnist_search.engine.replica import Replica
from kmnist_search.errors import ModelError
from kmnist_search.evaluation.ledger import Ledger
from kmnist_search.evaluation.metrics import EpochFigures, FinalModel, FinalTraining, Opening, Recipe
from kmnist_search.evaluation.testing import tested
from kmnist_search.model import Model
from kmnist_search.saved_model.folder import load_model, save_model


class FinalModels:
    """The final models in `parent`, with their entries in `ledger`."""

    def __init__(self, ledger: Ledger, parent: Path, dataset: Dataset) -> None:
        self.ledger, self.parent, self.dataset = ledger, parent, dataset

    def folder(self, recipe: Recipe, seed: int) -> Path:
        """Return the folder of one model."""
        return self.parent / f"final-{recipe.digest}-{seed}"

    def find(self, recipe: Recipe, seed: int) -> FinalTraining | None:
        """Return a finished final training, if its unchanged weights still exist."""
        final = self.ledger.final(recipe.digest, seed)
        if final is None:
            return None
        try:
            info = load_model(self.folder(recipe, seed)).info
        except ModelError:
            return None  # deleted or damaged: train it again
        return final if info.weights_sha256 == final.weights_sha256 else None

    def keep(self, recipe: Recipe, training: Replica, model: Model, whole: SearchData) -> FinalTraining:
        """Save the model of a training on the whole training set, and record it in the ledger."""
        folder = self.folder(recipe, training.seed)
        shutil.rmtree(folder, ignore_errors=True)  # what `find` rejected
        info = save_model(
            folder,
            model,
            dataset=self.dataset,
            mean=whole.mean,
            std=whole.std,
            config_digest=recipe.config_digest,
            recipe_digest=recipe.digest,
            seed=training.seed,
        )
        final = FinalTraining(
            seed=training.seed,
            weights_sha256=info.weights_sha256,
            seconds=training.seconds,
            epochs=tuple(EpochFigures(**asdict(epoch)) for epoch in training.history),
        )
        self.ledger.note_final(recipe.digest, final)
        return final

    def tested(self, recipe: Recipe, final: FinalTraining, test_set: SealedSet) -> tuple[FinalModel, bool]:
        """Return a model with its test result, and whether the ledger had the result already."""
        before = self.ledger.opening(recipe.digest, final.seed, final.weights_sha256)
        opening = tested(self.ledger, load_model(self.folder(recipe, final.seed)), test_set)
        return _with_result(final, opening), before is not None and before.accuracy is not None


def _with_result(final: FinalTraining, opening: Opening) -> FinalModel:
    return FinalModel(
        **final.model_dump(),
        opened_at=opening.opened_at,
        test_correct=opening.correct,
        test_accuracy=opening.accuracy,
        test_loss=opening.loss,
    )
