"""The plan of a retraining: the configurations, their seeds and their splits.

The plan depends only on the study and the options, so a restarted retraining has the same plan.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from kmnist_search.config import DataConfig, TrialConfig
from kmnist_search.config.seeds import derived_seed
from kmnist_search.study.ranking import distinct
from kmnist_search.study.study import SearchStudy

#: Purposes of the derived seeds; trials use 0 and 1.
RERUN, SPLIT, FINAL = 2, 3, 4


@dataclass(frozen=True, kw_only=True)
class RetrainOptions:
    """The user's options.

    Attributes:
        top_k: number of candidates; 1 takes the best trial without reruns.
        seeds: reruns, with fresh seeds and splits, of each candidate.
        final_seeds: number of final models.
        epochs: epochs of each training; None for the study's own.
        data_dir: folder of the images; None for the one the study was last searched with, or else the user's cache.
        device: "auto", "cpu", "cuda" or "cuda:N".
        compiled: whether trainings use `torch.compile`.
    """

    top_k: int = 5
    seeds: int = 3
    final_seeds: int = 5
    epochs: int | None = None
    data_dir: Path | None = None
    device: str = "auto"
    compiled: bool = False

    def command(self, name: str) -> str:
        """Return the command that does the same for the study called `name`."""
        epochs = "" if self.epochs is None else f" --epochs {self.epochs}"
        return (
            f"kmnist-search best {name} --retrain --top {self.top_k} --seeds {self.seeds} "
            f"--final-seeds {self.final_seeds}{epochs}"
        )


@dataclass(frozen=True, kw_only=True)
class PlannedCandidate:
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

    candidates: Sequence[PlannedCandidate]
    reruns: Mapping[int, DataConfig]
    final_seeds: Sequence[int]
    val_share: float

    @property
    def trainings(self) -> int:
        return len(self.candidates) * len(self.reruns) + len(self.final_seeds)

    @property
    def seconds(self) -> float | None:
        """Estimated duration on the hardware of the search; None if unknown."""
        known = [candidate.seconds for candidate in self.candidates if candidate.seconds is not None]
        if len(known) < len(self.candidates):
            return None
        return sum(known) * (len(self.reruns) + len(self.final_seeds) / len(known))


def plan_of(study: SearchStudy, options: RetrainOptions) -> RetrainingPlan:
    """Return the plan for the study in its present state.

    Raises:
        NoCompleteTrialError: the study has no complete trial.
    """
    best = distinct(study.complete())[: options.top_k]
    study.with_details(best)
    seed, data = int(study.settings["study"]["seed"]), study.settings["data"]
    reruns = {
        derived_seed(seed, number, RERUN): DataConfig(**{**data, "split_seed": derived_seed(seed, number, SPLIT)})
        for number in range(options.seeds if len(best) > 1 else 0)
    }
    return RetrainingPlan(
        candidates=[_planned(trial, options.epochs) for trial in best],
        reruns=reruns,
        final_seeds=[derived_seed(seed, number, FINAL) for number in range(options.final_seeds)],
        val_share=data["val_share"],
    )


def _planned(trial: FrozenTrial, epochs: int | None) -> PlannedCandidate:
    config = TrialConfig.model_validate_json(json.dumps(trial.user_attrs["config"]))
    seconds = trial.user_attrs.get("seconds")
    if epochs is not None:
        seconds = seconds and seconds * epochs / config.train.epochs
        config = config.model_copy(update={"train": config.train.model_copy(update={"epochs": epochs})})
    return PlannedCandidate(
        trial=trial.number,
        config=config,
        params=trial.params,
        study_val_accuracy=trial.user_attrs["val_accuracy_curve"][-1],
        seconds=seconds,
    )
