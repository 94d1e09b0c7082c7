"""The test of trained systems: all recipes are frozen first, then each model is tested once."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from kmnist_search.data import files
from kmnist_search.data.catalog import IDX_DATASETS
from kmnist_search.data.test_set import SealedSet, open_test_set
from kmnist_search.errors import ModelError
from kmnist_search.evaluation.ledger import Ledger
from kmnist_search.evaluation.metrics import Recipe, Reference
from kmnist_search.evaluation.testing import tested
from kmnist_search.references.results import TestedSystem, TrainedSystem
from kmnist_search.saved_model import trial_models
from kmnist_search.saved_model.model import SavedModel
from kmnist_search.study.study import SearchStudy


def check_test_files(references: Sequence[Reference], data_dir: Path) -> None:
    """Check that the references' test images exist; they stay closed.

    Raises:
        DataError: some are missing and cannot be downloaded.
    """
    for dataset in dict.fromkeys(reference.dataset for reference in references):
        files.test_files(IDX_DATASETS[dataset], data_dir)


class Test:
    """The test of trained systems; it resumes after an interruption.

    Attributes:
        test_sets: the test sets opened so far, by data set.
        kept: each system's model after its last epoch, by trial number.
    """

    def __init__(self, study: SearchStudy, trained: Sequence[TrainedSystem], data_dir: Path) -> None:
        """Find the models; open nothing yet.

        Raises:
            ModelError: some of them are missing.
        """
        self.ledger, self.trained, self.data_dir = Ledger(study), trained, data_dir
        self.test_sets: dict[str, SealedSet] = {}
        self.kept = {each.number: _model(study, each, "last") for each in trained}
        self._best = {each.number: _model(study, each, "best") for each in trained}

    def work(self) -> Iterator[TestedSystem]:
        """Freeze all recipes, then test the models one after the other."""
        for recipe in _recipes(self.trained):
            self.ledger.freeze(recipe)
        for each in self.trained:
            last, best = self.kept[each.number], self._best[each.number]
            test_set = self._test_set(last.info.dataset)
            yield TestedSystem(
                trained=each,
                last=tested(self.ledger, last, test_set),
                best=tested(self.ledger, best, test_set),
            )

    def _test_set(self, dataset: str) -> SealedSet:
        if dataset not in self.test_sets:
            self.test_sets[dataset] = open_test_set(dataset, self.data_dir)
        return self.test_sets[dataset]


def _model(study: SearchStudy, each: TrainedSystem, which: trial_models.Which) -> SavedModel:
    model = trial_models.find(each.models, study.checkpoint_dir, each.number, which)
    if model is None:
        raise ModelError(
            f"the models of trial {each.number} ({each.system}) are not in {study.checkpoint_dir}. "
            "Test where they were trained, share the folder with --checkpoints, or start again with another --name."
        )
    return model


def _recipes(trained: Sequence[TrainedSystem]) -> list[Recipe]:
    """Return each system's recipe, with the seeds of its trials."""
    by_digest: dict[str, list[TrainedSystem]] = {}
    for each in trained:
        by_digest.setdefault(each.recipe_digest, []).append(each)
    return [
        Recipe.frozen_now(group[0].config, digest=digest, trial=group[0].number, seeds=[each.seed for each in group])
        for digest, group in by_digest.items()
    ]
