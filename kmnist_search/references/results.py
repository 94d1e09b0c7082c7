"""The results of the retrained published systems, read from the study of their trials and its ledger."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from kmnist_search.database.storage import Storage
from kmnist_search.evaluation.ledger import Ledger
from kmnist_search.evaluation.metrics import EpochFigures, Opening, Reference, Reproduced
from kmnist_search.evaluation.trained import Trained, all_over
from kmnist_search.references.published import HEADLINES
from kmnist_search.references.systems import NAME
from kmnist_search.study.opening import find_study, study_names
from kmnist_search.study_file.schema import Which


@dataclass(frozen=True, kw_only=True)
class TestedSystem:
    """A trained system with its two looks at the test set: after the last epoch, and after the best."""

    trained: Trained
    last: Opening
    best: Opening

    @property
    def best_epoch(self) -> EpochFigures:
        """The best epoch on the validation images."""
        number: int = self.trained.models["best"]["epoch"]
        return self.trained.epochs[number - 1]


def system_of(trained: Trained) -> str:
    """Return the name of the system that a training trained."""
    return str(trained.params["system"])


def tested(ledger: Ledger, systems: Sequence[Trained]) -> list[TestedSystem]:
    """Return the systems that had both looks at the test set."""

    def look(each: Trained, which: Which) -> Opening | None:
        return ledger.result(each.recipe_digest, each.seed, each.models[which]["info"]["weights_sha256"])

    found = []
    for each in systems:
        last, best = look(each, "last"), look(each, "best")
        if last is not None and best is not None:
            found.append(TestedSystem(trained=each, last=last, best=best))
    return found


def with_reproductions(references: Sequence[Reference], systems: Sequence[TestedSystem]) -> tuple[Reference, ...]:
    """Return the references; the retrained ones have their results."""
    return tuple(
        reference.model_copy(update={"reproduced": _reproduced(of_it) if of_it else None})
        for reference in references
        for of_it in [[each for each in systems if system_of(each.trained) == reference.name]]
    )


def known_in(storage: Storage) -> tuple[Reference, ...]:
    """Return the published references, with results from the storage's study `references` if it exists."""
    if NAME not in study_names(storage):
        return HEADLINES
    study = find_study(storage, NAME)
    full = {reference.name: reference.epochs for reference in HEADLINES}
    systems = [each for each in all_over(study) if len(each.epochs) == full.get(system_of(each))]
    return with_reproductions(HEADLINES, tested(Ledger(study), systems))


def _reproduced(systems: Sequence[TestedSystem]) -> Reproduced:
    def mean(values: Sequence[float | None]) -> float:
        return statistics.fmean(value for value in values if value is not None)

    lasts = [each.trained.epochs[-1] for each in systems]
    accuracies = [each.last.accuracy for each in systems if each.last.accuracy is not None]
    return Reproduced(
        seeds=len(systems),
        epochs=len(systems[0].trained.epochs),
        num_parameters=systems[0].trained.num_parameters,
        seconds=mean([each.trained.seconds for each in systems]),
        train_loss=mean([epoch.train_loss for epoch in lasts]),
        train_accuracy=mean([epoch.train_accuracy for epoch in lasts]),
        val_accuracy=mean([epoch.val_accuracy for epoch in lasts]),
        best_val_accuracy=mean([each.best_epoch.val_accuracy for each in systems]),
        test_accuracy=mean(accuracies),
        test_accuracy_sd=statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        best_test_accuracy=mean([each.best.accuracy for each in systems]),
    )
