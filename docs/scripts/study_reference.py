"""Write docs/hyperparameters.md and docs/study.schema.json from the models that check a study file.

python docs/scripts/study_reference.py
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kmnist_search.config import BLOCK_WIDTHS, SECTIONS, Config, DataConfig, TrainConfig
from kmnist_search.study_file.constraints import ConstraintsTable
from kmnist_search.study_file.schema import RetrainTable, StudyTable

DOCS = Path(__file__).parents[1]
HEAD = """# Hyperparameters

Each can be in `[space]` or in `[fixed]` of a [study file](studies.md#hyperparameters). One that is in neither has its
default. This page is made from the models that check a study file.
"""
TITLES = {"augment": "Augmentation"}
#: In a study file a sampler or a pruner may also be its name alone.
NAMED = ("sampler", "pruner")

TABLES: Mapping[str, type[Config]] = {
    "study": StudyTable,
    "data": DataConfig,
    "train": TrainConfig,
    "retrain": RetrainTable,
    "constraints": ConstraintsTable,
}

Schema = dict[str, Any]


def main() -> None:
    (DOCS / "hyperparameters.md").write_text(table(), encoding="utf-8")
    (DOCS / "study.schema.json").write_text(json.dumps(study_schema(), indent=1) + "\n", encoding="utf-8")


def table() -> str:
    """Return the page of all hyperparameters: what each may be, and its default."""
    parts = [HEAD]
    for section in SECTIONS:
        parts.append(f"## {TITLES.get(section, section.capitalize())}\n")
        parts.append("| hyperparameter | values | default |\n|---|---|---|")
        for name, schema in _properties(section).items():
            default = f"`{json.dumps(schema['default'])}`" if "default" in schema else ""
            parts.append(f"| `{name}` | {_values(schema)} | {default} |")
        parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def study_schema() -> Schema:
    """Return the JSON schema of a study file, for editors; the program also checks what values fit together."""
    tables = {name: _bare(kind.model_json_schema()) for name, kind in TABLES.items()}
    definitions: Schema = {}
    for schema in tables.values():
        definitions |= schema.pop("$defs", {})
    share = tables["data"]["properties"]["val_share"]
    share["exclusiveMinimum"] = share.pop("minimum")  # 0 is for final models
    study = tables["study"]
    study.pop("required")  # the file's name is the study's, if it has none
    for name in NAMED:
        names = definitions[f"{name.capitalize()}Config"]["properties"]["name"]
        study["properties"][name] = {"anyOf": [{"enum": names["enum"]}, study["properties"][name]]}
    fixed = {name: schema for section in SECTIONS for name, schema in _properties(section).items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Study file of kmnist-search",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            **tables,
            "fixed": _object(fixed),
            "space": _object({name: _searched(name, schema) for name, schema in fixed.items() if name != "layers"}),
            "enqueue": {"type": "array", "items": _object(fixed)},
        },
        "$defs": definitions,
    }


def _properties(section: str) -> dict[str, Schema]:
    return {
        name: schema
        for kind in SECTIONS[section]
        for name, schema in _bare(kind.model_json_schema())["properties"].items()
    }


def _bare(schema: Any) -> Any:
    """Return a schema without what pydantic takes from names and docstrings."""
    if isinstance(schema, list):
        return [_bare(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {
        key: each for key, each in schema.items() if not (key in ("title", "description") and isinstance(each, str))
    }
    return {key: _bare(each) for key, each in kept.items()}


def _object(properties: Mapping[str, Schema]) -> Schema:
    return {"type": "object", "additionalProperties": False, "properties": dict(properties)}


def _searched(name: str, value: Schema) -> Schema:
    """Return what `[space]` may say of a hyperparameter: choices, or for a number a range."""
    bare = {key: each for key, each in value.items() if key != "default"}
    searched: Schema = {"when": {"type": "object"}}
    if name in BLOCK_WIDTHS:
        searched["each_block"] = {"type": "boolean"}
    listed: Schema = {"choices": {"type": "array", "items": bare, "minItems": 1}, **searched}
    choices = {**_object(listed), "required": ["choices"]}
    number = next((kind for kind in bare.get("anyOf", [bare]) if kind.get("type") in ("integer", "number")), None)
    if number is None or "enum" in bare:
        return choices
    step = {"type": number["type"], "exclusiveMinimum": 0}
    bounds: Schema = {"low": number, "high": number, "step": step, "log": {"type": "boolean"}, **searched}
    return {"anyOf": [choices, {**_object(bounds), "required": ["low", "high"]}]}


def _values(schema: Schema) -> str:
    if "anyOf" in schema:
        return ", or ".join(_values(each) for each in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(each)}`" for each in schema["enum"])
    if schema["type"] == "array":
        return "a list of layers" if "anyOf" in schema["items"] else "a list, one for each block"
    name = {"integer": "whole number", "number": "number", "boolean": "`true`, `false`"}[schema["type"]]
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    return " ".join([name, *(f"{sign} {schema[key]:g}," for key, sign in signs.items() if key in schema)]).rstrip(",")


if __name__ == "__main__":
    main()
