"""The results of the retrained published systems, read from the study of their trials and its ledger."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from kmnist_search.config import TrialConfig
from kmnist_search.database.storage import Storage
from kmnist_search.evaluation.ledger import Ledger
from kmnist_search.evaluation.metrics import EpochFigures, Opening, Reference, Reproduced
from kmnist_search.references.published import HEADLINES
from kmnist_search.references.systems import NAME
from kmnist_search.saved_model.info import recipe_digest
from kmnist_search.saved_model.trial_models import MODELS_KEY
from kmnist_search.study.opening import find_study, study_names
from kmnist_search.study.study import SearchStudy


@dataclass(frozen=True, kw_only=True)
class TrainedSystem:
    """A complete trial of a system.

    Attributes:
        models: see `trial_models.keep`.
    """

    number: int
    params: Mapping[str, Any]
    config: TrialConfig
    recipe_digest: str
    seed: int
    num_parameters: int
    device: str
    seconds: float
    epochs: tuple[EpochFigures, ...]
    models: Mapping[str, Any]

    @property
    def system(self) -> str:
        return str(self.params["system"])

    @property
    def best(self) -> EpochFigures:
        """The best epoch on the validation images."""
        number: int = self.models["best_epoch"]
        return self.epochs[number - 1]


@dataclass(frozen=True, kw_only=True)
class TestedSystem:
    """A trained system with its two looks at the test set: after the last epoch, and after the best."""

    trained: TrainedSystem
    last: Opening
    best: Opening


def trained(study: SearchStudy) -> list[TrainedSystem]:
    """Return the complete trials of the study, by number."""
    complete = [trial for trial in study.trials() if trial.state == TrialState.COMPLETE]
    study.with_details(complete)
    return [_trained(trial) for trial in complete]


def requested(systems: Sequence[TrainedSystem], params: Sequence[Mapping[str, Any]]) -> list[TrainedSystem]:
    """Return the systems whose hyperparameters are in `params`, in the order of `params`."""
    by_params = {tuple(sorted(each.params.items())): each for each in systems}
    keys = [tuple(sorted(entry.items())) for entry in params]
    return [by_params[key] for key in keys if key in by_params]


def _trained(trial: FrozenTrial) -> TrainedSystem:
    known = trial.user_attrs
    config = TrialConfig.model_validate(known["config"], strict=False)
    curves = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
    columns = zip(*(known[f"{curve}_curve"] for curve in curves), strict=True)
    return TrainedSystem(
        number=trial.number,
        params=trial.params,
        config=config,
        recipe_digest=recipe_digest(config, known["data_digest"]),
        seed=known["seed"],
        num_parameters=known["num_parameters"],
        device=known["device"],
        seconds=known["seconds"],
        epochs=tuple(
            EpochFigures(number=number, **dict(zip(curves, values, strict=True)))
            for number, values in enumerate(columns, start=1)
        ),
        models=known[MODELS_KEY],
    )


def tested(ledger: Ledger, systems: Sequence[TrainedSystem]) -> list[TestedSystem]:
    """Return the systems that had both looks at the test set."""
    found = []
    for each in systems:
        last, best = (ledger.result(each.recipe_digest, each.seed, each.models[which]) for which in ("last", "best"))
        if last is not None and best is not None:
            found.append(TestedSystem(trained=each, last=last, best=best))
    return found


def with_reproductions(references: Sequence[Reference], systems: Sequence[TestedSystem]) -> tuple[Reference, ...]:
    """Return the references; the retrained ones have their results."""
    return tuple(
        reference.model_copy(update={"reproduced": _reproduced(of_it) if of_it else None})
        for reference in references
        for of_it in [[each for each in systems if each.trained.system == reference.name]]
    )


def known_in(storage: Storage) -> tuple[Reference, ...]:
    """Return the published references, with results from the storage's study `references` if it exists."""
    if NAME not in study_names(storage):
        return HEADLINES
    study = find_study(storage, NAME)
    full = {reference.name: reference.epochs for reference in HEADLINES}
    systems = [each for each in trained(study) if len(each.epochs) == full.get(each.system)]
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
        best_val_accuracy=mean([each.trained.best.val_accuracy for each in systems]),
        test_accuracy=mean(accuracies),
        test_accuracy_sd=statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        best_test_accuracy=mean([each.best.accuracy for each in systems]),
    )
