"""What is private of optuna and optuna-dashboard is spelled in one room."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "kmnist_search"
#: Not the engine, which uses private names of torch; a contract of import-linter keeps optuna out of it.
MODULES = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if not {"optuna_internals", "engine"} & set(path.relative_to(PACKAGE).parts)
]

PRIVATE_IMPORT = re.compile(r"optuna(_dashboard)?\.(.*\.)?_")
KEYS = re.compile(r"^(fixed_params|completed_rung|artifacts:|dashboard:|_trial_id$|_study_id$)")
#: Private names that other libraries document for use: of named tuples.
DOCUMENTED = {"_replace", "_asdict"}


def _violations(source: str) -> Iterator[str]:
    tree = ast.parse(source)
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    own |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name for name in names if PRIVATE_IMPORT.match(name))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if PRIVATE_IMPORT.match(alias.name))
        elif isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            if node.attr not in own | DOCUMENTED:
                yield f"line {node.lineno}: .{node.attr}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and KEYS.match(node.value):
            yield f"line {node.lineno}: {node.value!r}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_other_module_spells_what_is_private_of_optuna(path: Path) -> None:
    assert list(_violations(path.read_text())) == []


@pytest.mark.parametrize(
    "source",
    [
        "from optuna.storages._rdb import models",
        "from optuna_dashboard import _importance",
        "import optuna_dashboard._serializer as serializer",
        "key = trial._trial_id",
        "table = optuna.storages._rdb",
        "key = f'completed_rung_{rung}'",
        "attributes['fixed_params']",
        "attributes['dashboard:note_ver']",
        "getattr(study, '_study_id')",
    ],
)
def test_what_is_private_is_noticed(source: str) -> None:
    assert list(_violations(source))
