"""What workers write for the dashboard, seen in a real Chromium: a note, plots, and the pictures of the best trial."""

import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.command import Command

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow

PLOTS = ("best-by-seconds", "size", "best-curves", "spent", "timeline")
DRAWN = ".points path, .point path, .lines path, .bars path"


@pytest.fixture
def page() -> "Iterator[Page]":
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium: install it (Debian: apt-get install chromium) to see the dashboard as a reader does")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser.new_page(viewport={"width": 1500, "height": 1000}, color_scheme="dark")
        browser.close()


def test_the_dashboard_shows_the_note_every_plot_and_the_pictures_of_the_best_trial(
    page: "Page",
    tiny_study: Path,
    start: Callable[..., Command],
    command: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    ran = command("run", "tiny.toml", "--trials", "2", "--set", "study.pruner=none")
    assert ran.returncode == 0, ran.stderr
    best = re.search(r"^best: .*  trial (\d)  ", ran.stdout, re.MULTILINE)
    assert best is not None
    serving = start("dashboard", "--port", "0")
    try:
        serving.wait_for(lambda: "Ctrl-C" in serving.output)
        found = re.search(r"(http://127\.0\.0\.1:\d+)/dashboard", serving.output)
        assert found is not None
        study = f"{found[1]}/dashboard/studies/1"
        page.goto(f"{study}/note")
        page.get_by_text("2 of 2 trials").wait_for()
        assert page.get_by_role("heading", name="Resume, stop, retrain").is_visible()
        assert page.get_by_role("cell", name="learning_rate").count() == 1  # the table is drawn as one
        page.goto(study)
        for name in PLOTS:
            plot = page.locator(f"[id='user-defined-plot:kmnist-search-{name}']")
            plot.locator(DRAWN).first.wait_for(state="attached")
            assert plot.locator(".gtitle").text_content()
            # On the dark theme's cards, what is written must be lighter than they are.
            lightness = plot.locator(".gtitle").evaluate("each => getComputedStyle(each).fill.match(/\\d+/)[0]")
            assert int(lightness) > 110
        page.goto(f"{study}/trials?numbers={best[1]}")
        images = page.locator("img[src*='/artifacts/']")
        images.first.wait_for()
        page.wait_for_function("[...document.querySelectorAll(\"img[src*='/artifacts/']\")].every(i => i.naturalWidth)")
        assert images.count() == 6
        sizes = images.evaluate_all("all => all.map(each => each.naturalWidth)")
        assert sizes[:3] == [640, 588, 780], "curves, confusion matrix and wrong images, in the note"
        assert sorted(sizes[3:]) == [588, 640, 780]
        # The note is above all attributes, and its first pictures are seen without scrolling.
        first = images.first.bounding_box()
        assert first is not None
        assert first["y"] + first["height"] < 1000
        assert "kmnist-search trials tiny --number" in page.locator("p:has(img) + p").inner_text()
        assert page.get_by_text(f"trial-{best[1]}.toml").count() == 1
    finally:
        serving.process.send_signal(signal.SIGINT)
        serving.ended()
    assert wrong == []
