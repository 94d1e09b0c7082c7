"""The plan of a retraining: the configurations, their seeds and their splits.

The plan depends only on the study and a few numbers, so a restarted retraining has the same plan.
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

#: Purposes of the derived seeds; trials use 0 and 1.
RERUN, SPLIT, FINAL = 2, 3, 4


@dataclass(frozen=True, kw_only=True)
class CandidateConfig:
    """A configuration to be retrained, with its trial and the trial's score.

    `config` may have other epochs than the trial. `seconds` is the trial's training time, scaled to these epochs;
    None if unknown.
    """

    trial: int
    config: TrialConfig
    params: Mapping[str, Any]
    study_val_accuracy: float
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class RetrainingPlan:
    """The plan of a retraining.

    Attributes:
        candidates: the best distinct configurations, best first.
        reruns: seed and split of each rerun, the same for every candidate. Empty with a single candidate.
        final_seeds: seeds of the final models; the model of the first is kept.
        val_share: share of the training images held out in each rerun.
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
        """Estimated duration on the hardware of the search; None if unknown."""
        each = [candidate.seconds for candidate in self.candidates]
        if None in each:
            return None
        known = [seconds for seconds in each if seconds is not None]
        return sum(known) * len(self.reruns) + sum(known) / len(known) * len(self.final_seeds)


def plan_of(study: SearchStudy, *, top_k: int, num_reruns: int, num_finals: int, epochs: int | None) -> RetrainingPlan:
    """Return the plan for the study in its present state.

    Args:
        study: the study.
        top_k: number of candidates; a single one gets no reruns.
        num_reruns: reruns, with fresh seeds and splits, of each candidate.
        num_finals: number of final models.
        epochs: epochs of every training; None for the study's.

    Raises:
        NoCompleteTrialError: the study has no complete trial.
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
