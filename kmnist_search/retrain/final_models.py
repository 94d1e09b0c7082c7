"""The final models of a study: saved beside its checkpoints, and tested once each."""

from dataclasses import asdict
from pathlib import Path

from kmnist_search.config import Dataset
from kmnist_search.data.test_set import SealedSet
from kmnist_search.engine.replica import Replica
from kmnist_search.evaluation.ledger import Ledger
from kmnist_search.evaluation.metrics import EpochFigures, FinalModel, FinalTraining, Recipe
from kmnist_search.evaluation.testing import tested
from kmnist_search.model import Model
from kmnist_search.retrain.events import ModelTested
from kmnist_search.saved_model.folder import find_model, load_model, save_trained


def epoch_figures(training: Replica) -> tuple[EpochFigures, ...]:
    """Return the epochs of a training as its result has them."""
    return tuple(EpochFigures(**asdict(epoch)) for epoch in training.history)


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
        if final is None or find_model(self.folder(recipe, seed), final.weights_sha256) is None:
            return None
        return final

    def keep(self, recipe: Recipe, training: Replica, model: Model) -> FinalTraining:
        """Save the model of a training on the whole training set, and record it in the ledger."""
        info = save_trained(self.folder(recipe, training.seed), model, training, self.dataset)
        final = FinalTraining(
            seed=training.seed,
            weights_sha256=info.weights_sha256,
            seconds=training.seconds,
            epochs=epoch_figures(training),
        )
        self.ledger.note_final(recipe.digest, final)
        return final

    def tested(self, recipe: Recipe, final: FinalTraining, test_set: SealedSet) -> ModelTested:
        """Return a model with its test result, from the ledger if it was tested before."""
        before = self.ledger.result(recipe.digest, final.seed, final.weights_sha256)
        opening = tested(self.ledger, load_model(self.folder(recipe, final.seed)), test_set)
        model = FinalModel(
            **final.model_dump(),
            opened_at=opening.opened_at,
            test_correct=opening.correct,
            test_accuracy=opening.accuracy,
            test_loss=opening.loss,
        )
        return ModelTested(model=model, from_ledger=before is not None)
