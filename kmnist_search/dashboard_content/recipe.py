"""One trial's configuration as a study file that repeats its training."""

from collections.abc import Mapping
from typing import Any

from kmnist_search.study_file.schema import PrunerConfig, StudyFile
from kmnist_search.study_file.writer import as_toml

#: A study's name has at most 100 characters.
MAX_NAME = 80


def recipe(file: StudyFile, number: int, params: Mapping[str, Any]) -> str:
    """Return a study file for one trial with the hyperparameters of trial `number`, and no search space."""
    name = f"{file.study.name[:MAX_NAME]}-trial-{number}"
    study = file.study.model_copy(update={"name": name, "trials": 1, "pruner": PrunerConfig(name="none")})
    again = file.only(params).model_copy(update={"study": study})
    facts = (
        f"trial {number} of study {file.study.name}, with another seed",
        f"kmnist-search run trial-{number}.toml",
    )
    return as_toml(again.model_dump(mode="json"), facts=facts)
