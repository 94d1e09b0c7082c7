"""The test of final models: the ledger records each look, then the model sees the test set."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sklearn.metrics import log_loss

from kmnist_search.data import files
from kmnist_search.data.catalog import IDX_DATASETS
from kmnist_search.data.test_set import SealedSet, open_test_set
from kmnist_search.evaluation.ledger import Ledger
from kmnist_search.evaluation.metrics import Opening, Recipe
from kmnist_search.saved_model.model import SavedModel
from kmnist_search.saved_model.packed import PackedModel


def check_test_files(datasets: Iterable[str], data_dir: Path) -> None:
    """Check that the test images of data sets exist; they stay closed.

    Raises:
        DataError: some are missing and cannot be downloaded.
    """
    for dataset in dict.fromkeys(datasets):
        if dataset in IDX_DATASETS:
            files.test_files(IDX_DATASETS[dataset], data_dir)


@dataclass(frozen=True, kw_only=True)
class Look:
    """A model's look at the test set, and whether it was had earlier."""

    opening: Opening
    from_ledger: bool


class Examination:
    """The test of models whose recipes are frozen. Opens each test set at the first look at it.

    Attributes:
        test_sets: those that were opened, by data set.
    """

    def __init__(self, ledger: Ledger, recipes: Iterable[Recipe], data_dir: Path) -> None:
        """Freeze the recipes."""
        self.ledger, self.data_dir = ledger, data_dir
        self.recipes = [ledger.freeze(recipe) for recipe in recipes]
        self.test_sets: dict[str, SealedSet] = {}

    def test_set(self, dataset: str) -> SealedSet:
        """Return a test set, opened."""
        if dataset not in self.test_sets:
            self.test_sets[dataset] = open_test_set(dataset, self.data_dir)
        return self.test_sets[dataset]

    def look(self, packed: PackedModel) -> Look:
        """Return the result of a model on its test set; from the ledger if it was tested before."""
        info = packed.info
        before = self.ledger.result(info.recipe_digest, info.seed, info.weights_sha256)
        if before is not None:
            return Look(opening=before, from_ledger=True)
        test_set = self.test_set(info.dataset)
        return Look(opening=_tested(self.ledger, packed.unpacked(), test_set), from_ledger=False)


def _tested(ledger: Ledger, model: SavedModel, test_set: SealedSet) -> Opening:
    info = model.info
    before = ledger.opening(info.recipe_digest, info.seed, info.weights_sha256)  # an interrupted look
    opening = before or Opening(
        opened_at=datetime.now(UTC),
        recipe_digest=info.recipe_digest,
        seed=info.seed,
        weights_sha256=info.weights_sha256,
        correct=None,
        accuracy=None,
        loss=None,
    )
    ledger.note_opening(opening)
    probabilities = model.probabilities(test_set.images)
    labels = test_set.labels.numpy()
    correct = int((probabilities.argmax(axis=1) == labels).sum())
    loss = float(log_loss(labels, probabilities, labels=range(probabilities.shape[1])))
    opening = opening.model_copy(update={"correct": correct, "accuracy": correct / len(labels), "loss": loss})
    ledger.note_opening(opening)
    return opening
