"""The plan of a retraining: which configurations are trained again, and with which seeds and splits.

All of it follows from the study and a few numbers, so a retraining that is started again finds the same plan.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial

from kmnist_search.config import DataConfig, TrialConfig
from kmnist_search.config.seeds import derived_seed
from kmnist_search.study.ranking import distinct
from kmnist_search.study.study import SearchStudy

#: What the derived seeds are for; 0 and 1 are the trials' own.
RERUN, SPLIT, FINAL = 2, 3, 4


@dataclass(frozen=True, kw_only=True)
class CandidateConfig:
    """A configuration to be retrained: the trial it is from, and what it had there.

    `config` may have other epochs than the trial; `seconds` is what a training of it took in the study, scaled to
    them, or None if that is not known.
    """

    trial: int
    config: TrialConfig
    params: Mapping[str, Any]
    study_val_accuracy: float
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class RetrainingPlan:
    """What a retraining does.

    Attributes:
        candidates: the best distinct configurations, best first.
        reruns: seed and split of each rerun; every candidate gets the same. Empty if there is nothing to choose.
        final_seeds: of the final models; the model of the first is kept.
        val_share: of the training images, held out in each rerun.
    """

    candidates: Sequence[CandidateConfig]
    reruns: Sequence[tuple[int, DataConfig]]
    final_seeds: Sequence[int]
    val_share: float

    @property
    def trainings(self) -> int:
        return len(self.candidates) * len(self.reruns) + len(self.final_seeds)

    @property
    def seconds(self) -> float | None:
        """About how long it takes where the study was searched, or None if that is not known."""
        each = [candidate.seconds for candidate in self.candidates]
        if None in each:
            return None
        known = [seconds for seconds in each if seconds is not None]
        return sum(known) * len(self.reruns) + sum(known) / len(known) * len(self.final_seeds)


def plan_of(study: SearchStudy, *, top_k: int, num_reruns: int, num_finals: int, epochs: int | None) -> RetrainingPlan:
    """Return the plan for the study as it stands.

    Args:
        study: where the candidates come from.
        top_k: candidates to choose from; with one, it is not trained again but for the final models.
        num_reruns: fresh seeds and splits for each candidate.
        num_finals: final models.
        epochs: of every training; None is the study's.

    Raises:
        NoCompleteTrialError: there is nothing to choose from.
    """
    best = distinct(study.complete())[:top_k]
    study.with_details(best)
    candidates = [_planned(trial, epochs) for trial in best]
    seed = int(study.settings["study"]["seed"])
    data = study.settings["data"]
    reruns = [
        (derived_seed(seed, number, RERUN), DataConfig(**{**data, "split_seed": derived_seed(seed, number, SPLIT)}))
        for number in range(num_reruns)
    ]
    return RetrainingPlan(
        candidates=candidates,
        reruns=reruns if len(candidates) > 1 else [],
        final_seeds=[derived_seed(seed, number, FINAL) for number in range(num_finals)],
        val_share=data["val_share"],
    )


def _planned(trial: FrozenTrial, epochs: int | None) -> CandidateConfig:
    config = TrialConfig.model_validate_json(json.dumps(trial.user_attrs["config"]))
    seconds = trial.user_attrs.get("seconds")
    if epochs is not None:
        seconds = seconds and seconds * epochs / config.train.epochs
        config = config.model_copy(update={"train": config.train.model_copy(update={"epochs": epochs})})
    return CandidateConfig(
        trial=trial.number,
        config=config,
        params=trial.params,
        study_val_accuracy=trial.user_attrs["val_accuracy_curve"][-1],
        seconds=seconds,
    )
