"""The notebooks of the docs: they run in an empty folder, and the pages show what they show."""

from pathlib import Path

import nbformat
import pytest

from docs.scripts.notebooks import FOLDER, executed

pytestmark = pytest.mark.slow

NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def test_there_are_two() -> None:
    assert [notebook.stem for notebook in NOTEBOOKS] == ["first-search", "predictions"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_every_cell_runs_and_shows_as_much_as_its_page(notebook: Path, tmp_path: Path) -> None:
    kept = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call]
    found = executed(notebook, tmp_path)
    for before, now in zip(kept.cells, found.cells, strict=True):
        if now.cell_type == "code":
            assert bool(before.outputs) == bool(now.outputs), now.source
    shown = "".join(str(cell.get("outputs")) for cell in found.cells)
    assert "trials finished; best: val_accuracy" in shown
