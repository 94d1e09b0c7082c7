"""The plan of a retraining: the configurations, their seeds and their splits.

It depends only on the study and the options, so the same command plans the same trainings again.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial

from kmnist_search.config import Config, DataConfig, TrialConfig
from kmnist_search.config.seeds import derived_seed
from kmnist_search.study.ranking import distinct, up_to
from kmnist_search.study.study import SearchStudy
from kmnist_search.study_file.schema import PlannedTraining, RetrainTable, TrainingSpec
from kmnist_search.study_file.space import Choices, Hyperparameter, IntRange

#: Purposes of the derived seeds; trials use 0 and 1.
RERUN, SPLIT, FINAL = 2, 3, 4

#: What the trainings of a retraining are listed with.
SPACE: dict[str, Hyperparameter] = {
    "stage": Choices(choices=("rerun", "final")),
    "candidate": IntRange(low=0, high=10**9),
    "repeat": IntRange(low=0, high=10**9),
    "epochs": IntRange(low=1, high=10**9),
}


@dataclass(frozen=True, kw_only=True)
class RetrainOptions:
    """The options of the command line; None leaves a setting as it is in the study's table [retrain]."""

    top_k: int | None = None
    reruns: int | None = None
    rerun_epochs: int | None = None
    models: int | None = None
    epochs: int | None = None
    max_parameters: int | None = None

    def over(self, settings: RetrainTable) -> RetrainTable:
        """Return the settings with these options."""
        return settings.model_copy(update={key: value for key, value in vars(self).items() if value is not None})

    def as_text(self) -> str:
        """Return the options as they are typed."""
        names = {"top_k": "--top", "rerun_epochs": "--rerun-epochs", "max_parameters": "--max-parameters"}
        given = {names.get(key, f"--{key}"): value for key, value in vars(self).items() if value is not None}
        return "".join(f" {option} {value}" for option, value in given.items())


class PlannedCandidate(Config):
    """A configuration to be retrained, with its trial and the trial's score.

    Attributes:
        rerun: the configuration of its reruns, which may have other epochs than the trial.
        final: that of its final models.
        seconds: training time of the trial; None if unknown.
    """

    trial: int
    rerun: TrialConfig
    final: TrialConfig
    params: dict[str, Any]
    epochs: int
    study_val_accuracy: float
    seconds: float | None


class Repeat(Config):
    """The seed of a rerun, and its split of the training images."""

    seed: int
    data: DataConfig


class RetrainingPlan(Config):
    """The plan of a retraining.

    Attributes:
        candidates: the best distinct configurations, best first.
        repeats: of each candidate, the same for all. Empty with a single candidate.
        final_seeds: seeds of the final models; the model of the first is kept.
        data: the study's images and split.
    """

    candidates: list[PlannedCandidate]
    repeats: list[Repeat]
    final_seeds: list[int]
    data: DataConfig

    @property
    def trainings(self) -> int:
        return len(self.candidates) * len(self.repeats) + len(self.final_seeds)

    @property
    def seconds(self) -> float | None:
        """Estimated training time on the hardware of the search; None if unknown."""
        total, models = 0.0, len(self.final_seeds) / len(self.candidates)
        for each in self.candidates:
            if each.seconds is None:
                return None
            epochs = len(self.repeats) * each.rerun.train.epochs + models * each.final.train.epochs
            total += each.seconds / each.epochs * epochs
        return total

    def reruns(self) -> list[list[PlannedTraining]]:
        """Return the reruns of each candidate."""
        return [
            [
                PlannedTraining(
                    params=_listed("rerun", candidate.trial, number, candidate.rerun),
                    spec=TrainingSpec(config=candidate.rerun, data=repeat.data, seed=repeat.seed),
                )
                for number, repeat in enumerate(self.repeats)
            ]
            for candidate in self.candidates
        ]

    def finals(self, winner: PlannedCandidate) -> list[PlannedTraining]:
        """Return the final trainings by the winner's recipe, on all training images."""
        return [
            PlannedTraining(
                params=_listed("final", winner.trial, number, winner.final),
                spec=TrainingSpec(config=winner.final, data=self.data.whole(), seed=seed, keeps=("last",)),
            )
            for number, seed in enumerate(self.final_seeds)
        ]


def _listed(stage: str, trial: int, repeat: int, config: TrialConfig) -> dict[str, Any]:
    return {"stage": stage, "candidate": trial, "repeat": repeat, "epochs": config.train.epochs}


def plan_of(study: SearchStudy, settings: RetrainTable) -> RetrainingPlan:
    """Return the plan for the study in its present state.

    Raises:
        NoCompleteTrialError: the study has no complete trial of a net that is small enough.
    """
    best = distinct(up_to(settings.max_parameters, study.complete()))[: settings.top_k]
    study.with_details(best)
    seed, data = int(study.settings["study"]["seed"]), DataConfig(**study.settings["data"])
    return RetrainingPlan(
        candidates=[_planned(trial, settings) for trial in best],
        repeats=[
            Repeat(
                seed=derived_seed(seed, number, RERUN),
                data=data.model_copy(update={"split_seed": derived_seed(seed, number, SPLIT)}),
            )
            for number in range(settings.reruns if len(best) > 1 else 0)
        ],
        final_seeds=[derived_seed(seed, number, FINAL) for number in range(settings.models)],
        data=data,
    )


def _planned(trial: FrozenTrial, settings: RetrainTable) -> PlannedCandidate:
    config = TrialConfig.model_validate_json(json.dumps(trial.user_attrs["config"]))
    return PlannedCandidate(
        trial=trial.number,
        rerun=_for(config, settings.rerun_epochs),
        final=_for(config, settings.epochs),
        params=trial.params,
        epochs=config.train.epochs,
        study_val_accuracy=trial.user_attrs["val_accuracy_curve"][-1],
        seconds=trial.user_attrs.get("seconds"),
    )


def _for(config: TrialConfig, epochs: int | None) -> TrialConfig:
    """Return the configuration for so many epochs; None leaves them as they are."""
    if epochs is None:
        return config
    return config.model_copy(update={"train": config.train.model_copy(update={"epochs": epochs})})


def longest_first(trainings: Sequence[PlannedTraining]) -> list[PlannedTraining]:
    """Return the trainings in the order in which several workers are done with them soonest."""
    return sorted(trainings, key=lambda each: -each.flops)
