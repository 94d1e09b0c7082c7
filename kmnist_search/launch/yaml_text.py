"""Manifests as YAML text that every parser reads alike."""

import re
from collections.abc import Sequence
from typing import Any

import yaml

#: Characters that end a line in YAML, but hardly anywhere else.
OTHER_LINE_ENDS = ("\x85", "\u2028", "\u2029")


class _Dumper(yaml.SafeDumper):
    """Quotes more than PyYAML does, and writes texts of several lines as blocks."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)  # lists are indented below their key

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    if any(mark in text for mark in OTHER_LINE_ENDS):
        style = '"'  # the only style that escapes them
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


# Kubernetes uses a Go library, which reads 1e3 and 0o17 as numbers and y as true. PyYAML takes them for plain text and
# would not quote them. It quotes what these patterns match; they come after its own, so numbers stay unquoted.
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+.]*[0-9].*", re.DOTALL), list("-+.0123456789"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"[yYnN]$"), list("yYnN"))
_Dumper.add_representer(str, _text)


def as_yaml(documents: Sequence[dict[str, Any]]) -> str:
    """Return the documents as one YAML stream."""
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, explicit_start=True)
