"""The page of hyperparameters and the schema of study files are those of the models, and fit the studies there are."""

import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from docs.scripts.study_reference import study_schema, table
from kmnist_search.study_file.builtin import builtin_studies
from tests.support.command import CHECKOUT

DOCS = CHECKOUT / "docs"
NEW = "write it anew: python docs/scripts/study_reference.py"


def test_the_page_of_hyperparameters_is_that_of_the_models() -> None:
    assert (DOCS / "hyperparameters.md").read_text(encoding="utf-8") == table(), NEW


def test_the_schema_is_that_of_the_models() -> None:
    assert json.loads((DOCS / "study.schema.json").read_text(encoding="utf-8")) == study_schema(), NEW


@pytest.mark.parametrize("path", builtin_studies().values(), ids=builtin_studies())
def test_built_in_studies_are_valid_by_the_schema(path: Path) -> None:
    jsonschema.validate(tomllib.loads(path.read_text()), study_schema())


@pytest.mark.parametrize(
    "wrong",
    [
        {"space": {"learning_rat": {"choices": [0.1]}}},
        {"space": {"dim": {"low": 8}}},
        {"space": {"norm": {"low": 1, "high": 2}}},
        {"fixed": {"shift": -1}},
        {"study": {"sampler": "grid"}},
        {"train": {"epoch": 3}},
    ],
)
def test_a_mistake_is_not_valid_by_the_schema(wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, study_schema())
