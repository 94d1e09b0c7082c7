"""The writer of study files."""

from collections.abc import Mapping, Sequence
from typing import Any

import tomlkit
from tomlkit.items import AoT, InlineTable, Table

from kmnist_search.study_file.schema import TABLES
from kmnist_search.study_file.space import FloatRange, IntRange


def as_toml(settings: Mapping[str, Any], *, facts: Sequence[str] = ()) -> str:
    """Return the settings as a study file that `parser.load` reads back, with `facts` as comments at the top."""
    document = tomlkit.document()
    for fact in facts:
        document.add(tomlkit.comment(fact))
    in_order = {**{name: settings[name] for name in TABLES if name in settings}, **settings}
    for name, table in in_order.items():
        if not table:
            continue  # the parser rejects an empty [space]
        if name == "enqueue":
            document.add(name, _tables(table))
        elif name == "space":
            document.add(name, _table({key: _hyperparameter(spec) for key, spec in table.items()}))
        else:
            document.add(name, _table(table))
    return tomlkit.dumps(document)


def _tables(values: Sequence[Mapping[str, Any]]) -> AoT:
    tables = tomlkit.aot()
    for value in values:
        tables.append(_table(value))
    return tables


def _table(values: Mapping[str, Any]) -> Table:
    table = tomlkit.table()
    for key, value in values.items():
        if value is None:
            continue  # TOML has no null
        table.add(key, _inline(value) if isinstance(value, Mapping) else value)
    return table


def _inline(values: Mapping[str, Any]) -> InlineTable:
    table = tomlkit.inline_table()
    table.update({key: value for key, value in values.items() if value is not None})
    return table


def _hyperparameter(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a hyperparameter as a study file has it: TOML has no null, and a log scale takes no step, not even 1."""
    spec = {key: value for key, value in spec.items() if value or key not in ("when", "each_block")}
    if "choices" in spec:
        return spec
    kind = IntRange if isinstance(spec["low"], int) else FloatRange
    defaults = {key: field.default for key, field in kind.model_fields.items()}
    return {key: value for key, value in spec.items() if value != defaults[key]}
