"""Take the screenshots of the docs in a real Chromium: the dashboard, a trial's page in it, and a report.

python docs/scripts/screenshots.py dashboard            # dashboard.png and trial.png, of a new run of quickstart
python docs/scripts/screenshots.py report REPORT.html   # report.png, of a report that was made before
"""

import argparse
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

IMAGES = Path(__file__).parents[1] / "images"
COMMAND = "kmnist-search"
DASHBOARD_SIZE, TRIAL_SIZE, REPORT_SIZE = (1100, 2200), (1280, 900), (1000, 1180)
PLOT = ".js-plotly-plot .main-svg"
#: How long charts take to be drawn once they are there.
SETTLE_MILLISECONDS = 3000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    pictures = parser.add_subparsers(dest="picture", required=True)
    pictures.add_parser("dashboard")
    pictures.add_parser("report").add_argument("report", type=Path)
    arguments = parser.parse_args()
    with browser_page() as page:
        if arguments.picture == "report":
            take(page, arguments.report.absolute().as_uri(), "h1", "report.png", REPORT_SIZE)
        else:
            take_dashboard(page)


@contextmanager
def browser_page() -> Iterator[Page]:
    """Lend a page of Chromium."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser.new_page()
        browser.close()


def take_dashboard(page: Page) -> None:
    """Run the study quickstart in an empty folder, serve it, and take the pages of the study and of its best trial."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([COMMAND, "run", "quickstart", "--trials", "20"], cwd=folder, check=True)
        listed = subprocess.run(
            [COMMAND, "best", "--top", "1"], cwd=folder, check=True, capture_output=True, text=True
        ).stdout
        best = re.search(r"^\s+1\s+(\d+) ", listed, re.MULTILINE)
        assert best is not None, listed
        with served(Path(folder)) as url:
            take(page, f"{url}/dashboard/studies/1", PLOT, "dashboard.png", DASHBOARD_SIZE)
            trial = f"{url}/dashboard/studies/1/trials?numbers={best[1]}"
            take(page, trial, "main img", "trial.png", TRIAL_SIZE)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve the dashboard of a folder's database; yield its address."""
    command = [COMMAND, "dashboard", "--port", "0"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        found = re.search(r"http://\S+(?=/dashboard)", said)
        assert found is not None, said
        yield found[0]
        process.send_signal(signal.SIGINT)


def take(page: Page, url: str, awaited: str, name: str, size: tuple[int, int]) -> None:
    """Write a picture of a page that contains the element `awaited`, with as few colours as look the same."""
    width, height = size
    page.set_viewport_size({"width": width, "height": height})
    page.goto(url)
    page.locator(awaited).first.wait_for()
    page.wait_for_timeout(SETTLE_MILLISECONDS)
    path = IMAGES / name
    page.screenshot(path=path)
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)


if __name__ == "__main__":
    main()
