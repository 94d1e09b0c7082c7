"""Run the notebooks in docs/notebooks/ in an empty folder, and write them back with what they show.

    python docs/scripts/notebooks.py

It needs the extras `notebook` and `test`, and Chromium. Charts of plotly become pictures, because the site has
no plotly.
"""

import argparse
import base64
import shutil
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import plotly.graph_objects as go
import plotly.io
from nbclient import NotebookClient
from playwright.sync_api import Page, sync_playwright

FOLDER = Path(__file__).parents[1] / "notebooks"
#: What is left out: it is seen only while the notebook runs.
WIDGET, PLOTLY = "application/vnd.jupyter.widget-view+json", "application/vnd.plotly.v1+json"


def executed(notebook: Path, folder: Path) -> Any:
    """Return the notebook after all its cells have run in `folder`.

    Raises:
        CellExecutionError: one failed.
    """
    found = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call]
    NotebookClient(found, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    return found


def _shown(output: Any, page: Page) -> Any:
    """Return an output as it is kept; None if it is left out."""
    data = output.get("data", {})
    if WIDGET in data or data.get("text/plain") == "":
        return None
    if PLOTLY in data:
        page.set_content(plotly.io.to_html(go.Figure(data[PLOTLY], skip_invalid=True)))
        chart = page.locator(".main-svg").first
        chart.wait_for()
        output["data"] = {"image/png": base64.b64encode(page.locator(".plot-container").screenshot()).decode()}
    return output


def main() -> None:
    """Run all notebooks, in the order of their names, in one folder."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 760, "height": 460}, device_scale_factor=2)
        for notebook in sorted(FOLDER.glob("*.ipynb")):
            found = executed(notebook, Path(folder))
            for cell in found.cells:
                if cell.cell_type == "code":
                    cell.metadata.clear()  # times
                    cell.outputs = [kept for output in cell.outputs if (kept := _shown(output, page)) is not None]
            found.metadata.pop("widgets", None)
            nbformat.write(found, notebook)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
