"""Texts compared whole with recorded files; KMNIST_SEARCH_UPDATE_REFERENCE=1 writes them anew, a missing one fails."""

import os
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "recorded"
UPDATE_VARIABLE = "KMNIST_SEARCH_UPDATE_REFERENCE"


def assert_recorded(name: str, text: str) -> None:
    path = FOLDER / name
    if os.environ.get(UPDATE_VARIABLE):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.is_file(), f"no recorded {path}; look at the text, then write it with {UPDATE_VARIABLE}=1"
    assert text == path.read_text(encoding="utf-8"), f"{path} differs; if it should, write it with {UPDATE_VARIABLE}=1"
