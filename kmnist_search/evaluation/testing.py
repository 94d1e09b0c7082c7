"""The test of a final model: the ledger records the look, then the model sees the test set."""

from datetime import UTC, datetime

from sklearn.metrics import log_loss

from kmnist_search.data.test_set import SealedSet
from kmnist_search.evaluation.ledger import Ledger
from kmnist_search.evaluation.metrics import Opening
from kmnist_search.saved_model.model import SavedModel


def tested(ledger: Ledger, model: SavedModel, test_set: SealedSet) -> Opening:
    """Return a model's result on the test set; from the ledger if the model was tested before."""
    info = model.info
    before = ledger.opening(info.recipe_digest, info.seed, info.weights_sha256)
    if before is not None and before.accuracy is not None:
        return before
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
