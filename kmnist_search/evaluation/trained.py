"""The trainings of a plan that are over, as their trials in the database tell of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from kmnist_search.database.trial_writer import REASON_KEY
from kmnist_search.evaluation.metrics import EpochFigures, Recipe
from kmnist_search.queue.queue import TRAINING_KEY
from kmnist_search.saved_model.info import recipe_digest
from kmnist_search.saved_model.packed import PackedModel
from kmnist_search.study.study import SearchStudy
from kmnist_search.study.trial_rows import CURVE_SUFFIX, CURVES
from kmnist_search.study_file.schema import PlannedTraining, TrainingSpec, Which
from kmnist_search.worker.trial_attributes import DIVERGED
from kmnist_search.worker.trial_models import MODELS_KEY, TrialModels


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A training that is over: complete, or ended because it diverged.

    Attributes:
        number: of its trial.
        epochs: those that ended with a finite loss.
        models: entry of each kept model, see `TrialModels.keep`.
    """

    number: int
    params: Mapping[str, Any]
    spec: TrainingSpec
    diverged: bool
    recipe_digest: str
    num_parameters: int
    device: str
    seconds: float
    epochs: tuple[EpochFigures, ...]
    models: Mapping[Which, Mapping[str, Any]]

    @property
    def seed(self) -> int:
        assert self.spec.seed is not None
        return self.spec.seed


def over(study: SearchStudy, trainings: Iterable[PlannedTraining]) -> list[Trained | None]:
    """Return each training as it ended; None if it did not end yet, or failed."""
    found = {each.spec.digest: each for each in all_over(study)}
    return [found.get(each.spec.digest) for each in trainings]


def all_over(study: SearchStudy) -> list[Trained]:
    """Return all trainings of a study that ended and did not fail, by number."""
    ended = [trial for trial in study.trials() if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    study.with_details(ended)
    found = (_trained(trial) for trial in ended if TRAINING_KEY in trial.system_attrs)
    return [each for each in found if each is not None]


def _trained(trial: FrozenTrial) -> Trained | None:
    known = trial.user_attrs
    diverged = trial.state == TrialState.PRUNED and str(known.get(REASON_KEY, "")).startswith(DIVERGED)
    if trial.state != TrialState.COMPLETE and not diverged:
        return None
    spec = TrainingSpec.model_validate(trial.system_attrs[TRAINING_KEY])
    columns = zip(*(known[f"{curve}{CURVE_SUFFIX}"] for curve in CURVES), strict=True)
    return Trained(
        number=trial.number,
        params=trial.params,
        spec=spec,
        diverged=diverged,
        recipe_digest=recipe_digest(spec.config, known["data_digest"]),
        num_parameters=known["num_parameters"],
        device=known["device"],
        seconds=known["seconds"],
        epochs=tuple(
            EpochFigures(number=number, **dict(zip(CURVES, values, strict=True)))
            for number, values in enumerate(columns, start=1)
        ),
        models=known.get(MODELS_KEY, {}),
    )


def kept(study: SearchStudy, trained: Iterable[Trained], store: TrialModels) -> dict[int, Mapping[Which, PackedModel]]:
    """Return the models of each training, by the number of its trial.

    A training whose models are gone from the store, or damaged there, counts as failed from now on, and is left out:
    it can be planned again.
    """
    models: dict[int, Mapping[Which, PackedModel]] = {}
    for each in trained:
        found = {which: store.find(entry) for which, entry in each.models.items()}
        there = {which: model for which, model in found.items() if model is not None}
        if len(there) == len(each.spec.keeps):
            models[each.number] = there
        else:
            study.disown(each.number, "its model is gone from the artifact store")
    return models


def recipes(trained: Iterable[Trained]) -> list[Recipe]:
    """Return the recipe of each configuration and its images, with the seeds that it was trained with."""
    by_digest: dict[str, list[Trained]] = {}
    for each in trained:
        by_digest.setdefault(each.recipe_digest, []).append(each)
    return [
        Recipe.frozen_now(
            group[0].spec.config, digest=digest, trial=group[0].number, seeds=[each.seed for each in group]
        )
        for digest, group in by_digest.items()
    ]
