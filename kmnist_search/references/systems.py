"""The study `references`, whose trainings are those of the published systems."""

import sys
from collections.abc import Sequence

from kmnist_search.config import TrainConfig, trial_config
from kmnist_search.config.seeds import derived_seed
from kmnist_search.errors import ConfigError
from kmnist_search.evaluation.metrics import Reference
from kmnist_search.references.published import REFERENCES
from kmnist_search.study_file.builtin import find_study_file
from kmnist_search.study_file.parser import load
from kmnist_search.study_file.schema import PlanFile, PlannedTraining, PlanTable, SearchFile, TrainingSpec
from kmnist_search.study_file.space import Choices, IntRange

NAME = "references"


def chosen(only: Sequence[str]) -> tuple[Reference, ...]:
    """Return the references with the given names; S2 includes its experiments, and no name means all.

    Raises:
        ConfigError: a name is unknown.
    """
    names = [reference.name for reference in REFERENCES]
    found = {name.removeprefix("references/").upper(): name for name in only}
    for name, typed in found.items():
        if name not in names:
            raise ConfigError(f"--only {typed}: there is no such reference. There are: {', '.join(names)}")
    if not found:
        return REFERENCES
    return tuple(each for each in REFERENCES if each.name in found or each.name.partition("-")[0] in found)


def study_file(references: Sequence[Reference], *, name: str, seeds: int, epochs: int | None) -> PlanFile:
    """Return the study that trains each of the references with each seed.

    Args:
        references: the ones to train.
        name: name of the study.
        seeds: trainings of each reference; all references have the same ones.
        epochs: limit of epochs for each; None for the published numbers.
    """
    files = {reference.name: load(find_study_file(reference.study)) for reference in REFERENCES}
    longest = max(file.train.epochs for file in files.values())
    return PlanFile(
        study=PlanTable(name=name, plan="references", trials=seeds * len(references)),
        train=TrainConfig(epochs=longest),
        space={
            "system": Choices(choices=tuple(files)),
            "repeat": IntRange(low=0, high=999),
            "epochs": IntRange(low=1, high=longest),
        },
        trainings=tuple(
            _training(each.name, files[each.name], repeat, epochs) for repeat in range(seeds) for each in references
        ),
    )


def _training(system: str, file: SearchFile, repeat: int, limit: int | None) -> PlannedTraining:
    epochs = min(limit or sys.maxsize, file.train.epochs)
    config = trial_config(file.fixed, file.train.model_copy(update={"epochs": epochs}))
    seed = derived_seed(file.study.seed, repeat, 0)
    return PlannedTraining(
        params={"system": system, "repeat": repeat, "epochs": epochs},
        spec=TrainingSpec(config=config, data=file.data, seed=seed, keeps=("last", "best")),
    )
