"""One trial's configuration as a study file that repeats its training."""

from kmnist_search.study_file.schema import PrunerConfig, SearchFile, StudyTable, TrainingSpec
from kmnist_search.study_file.writer import as_toml

#: A study's name has at most 100 characters.
MAX_NAME = 80


def recipe(study: StudyTable, number: int, spec: TrainingSpec) -> str:
    """Return a study file that trains what trial `number` of a study trained, and searches nothing."""
    again = StudyTable(
        name=f"{study.name[:MAX_NAME]}-trial-{number}",
        metric="val_loss" if study.metric == "val_loss" else "val_accuracy",
        pruner=PrunerConfig(name="none"),
        seed=study.seed,
        trials=1,
    )
    facts = (
        f"trial {number} of study {study.name}, with another seed",
        f"kmnist-search run trial-{number}.toml",
    )
    return as_toml(SearchFile.repeating(spec, again).model_dump(mode="json"), facts=facts)
