"""Tests of evaluation/metrics.py: the schema of metrics.json is documented, and refuses unknown fields."""

import json
import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from kmnist_search.evaluation.metrics import Metrics, Opening

SCHEMA = Path(__file__).parents[3] / "docs" / "metrics.schema.json"
UPDATE_VARIABLE = "KMNIST_SEARCH_UPDATE_REFERENCE"


def test_the_documented_schema_is_that_of_the_program() -> None:
    current = json.dumps(Metrics.model_json_schema(), indent=2) + "\n"
    if os.environ.get(UPDATE_VARIABLE):
        SCHEMA.write_text(current)
    assert SCHEMA.read_text() == current, f"if that is on purpose, record it: {UPDATE_VARIABLE}=1 pytest {__file__}"


def test_figures_that_it_does_not_know_or_that_cannot_be_are_refused() -> None:
    opening = {
        "opened_at": "2026-01-01T00:00:00Z",
        "recipe_digest": "0" * 12,
        "seed": 1,
        "weights_sha256": "0" * 64,
        "correct": 5,
        "accuracy": 0.5,
        "loss": 0.1,
    }
    assert Opening.model_validate(opening).accuracy == 0.5
    for wrong in ({**opening, "acuracy": 0.5}, {**opening, "accuracy": 1.5}, {**opening, "opened_at": "2026-01-01"}):
        with pytest.raises(ValidationError):
            Opening.model_validate(wrong)
