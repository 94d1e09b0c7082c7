"""The page of a report in a real Chromium: it draws all it promises and asks nothing of any network."""

import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

SEARCH_SECTIONS = ["search", "searched", "hyperparameters", "trainings", "failures", "top"]
MODEL_SECTIONS = ["result", "choice", "final-model", "recipe", "references", "reproduce"]
SEARCH_CHARTS = [
    "best-by-trials",
    "best-by-seconds",
    "importance",
    "parallel",
    "size",
    "curves",
    "timeline",
    "slice-0",
    "slice-1",
]
MODEL_CHARTS = ["reruns", "loss-curves", "accuracy-curves", "calibration"]
DRAWN = ".points path, .point path, .lines path, .bars path"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a retraining, and beside it that of the search alone, of a study that was run for it."""
    from click.testing import CliRunner

    from kmnist_search.cli.main import main
    from tests.support.command import TINY_STUDY

    folder = tmp_path_factory.mktemp("report")
    (folder / "tiny.toml").write_text(TINY_STUDY)
    for arguments in (
        ["run", str(folder / "tiny.toml"), "--trials", "14"],
        ["best", "--retrain", "--top", "2", "--reruns", "2", "--models", "2", "--out", str(folder / "result")],
        ["report", "--out", str(folder / "result" / "search.html")],
    ):
        result = CliRunner().invoke(main, [*arguments, "--storage", f"sqlite:///{folder / 'search.db'}"])
        assert result.exit_code == 0, result.output
    return folder / "result" / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium: install it (Debian: apt-get install chromium) to see reports as a reader does")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


class Pages:
    """Pages in the browser, each loaded once, and what has gone wrong in them or was asked for from elsewhere."""

    def __init__(self, browser: "Browser") -> None:
        self.browser = browser
        self.opened: dict[tuple[Path, int, str], Page] = {}
        self.wrong: list[str] = []

    def open(self, file: Path, *, width: int = 1100, colours: Literal["light", "dark"] = "light") -> "Page":
        """Return the page as it is when it is opened so, whatever another test has done to it."""
        key = (file, width, colours)
        if key not in self.opened:
            self.opened[key] = self._load(file, width, colours)
        page = self.opened[key]
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=colours)
        return page

    def _load(self, file: Path, width: int, colours: Literal["light", "dark"]) -> "Page":
        page = self.browser.new_page(viewport={"width": width, "height": 900}, color_scheme=colours)
        page.on("console", lambda said: self.wrong.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.route("**/*", self._only_from_here)
        page.goto(file.as_uri())
        _wait_for(page, "[...document.querySelectorAll('.chart')].every(each => each.querySelector('.main-svg'))")
        return page

    def _only_from_here(self, route: "Route") -> None:
        if route.request.url.startswith(("file:", "data:")):
            route.continue_()
        else:
            self.wrong.append(f"asked for {route.request.url}")
            route.abort()


@pytest.fixture(scope="module")
def pages(browser: "Browser") -> Pages:
    return Pages(browser)


@pytest.fixture
def opened(pages: Pages) -> Iterator[Callable[..., "Page"]]:
    """Open a page; when the test is over, nothing may have gone wrong in it or left it."""
    yield pages.open
    wrong, pages.wrong = pages.wrong, []
    assert wrong == []


def _wait_for(page: "Page", condition: str, *, seconds: float = 240) -> None:
    """Wait until a JavaScript expression is true; Playwright's own way needs `eval`, which the page forbids."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(50)


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_a_whole_report_has_its_sections_and_every_chart_is_drawn(
    opened: Callable[..., "Page"], report: Path, colours: str
) -> None:
    page = opened(report, colours=colours)
    sections = page.eval_on_selector_all("section", "all => all.map(each => each.id)")
    assert sections == [*MODEL_SECTIONS, *SEARCH_SECTIONS]
    names = page.eval_on_selector_all(".chart", "all => all.map(each => each.closest('figure').id)")
    assert set(names) >= {*SEARCH_CHARTS, *MODEL_CHARTS}
    for name in names:
        assert page.locator(f"#{name} .chart").locator(DRAWN).count() > 0, name
    links = page.eval_on_selector_all("nav a", "all => all.map(each => each.getAttribute('href').slice(1))")
    assert sorted(links) == sorted([*MODEL_SECTIONS, *SEARCH_SECTIONS])
    images = page.eval_on_selector_all("img", "all => all.map(each => each.naturalWidth)")
    assert len(images) > 120
    assert set(images) == {28}
    assert page.eval_on_selector_all(".confusion tbody tr", "all => all.map(each => each.cells.length)") == [11] * 10


def test_a_search_report_has_only_its_half(opened: Callable[..., "Page"], report: Path) -> None:
    page = opened(report.with_name("search.html"))
    assert page.eval_on_selector_all("section", "all => all.map(each => each.id)") == SEARCH_SECTIONS
    assert page.locator("#best-by-trials").locator(DRAWN).count() > 0


def test_nothing_overflows_on_a_phone(opened: Callable[..., "Page"], report: Path) -> None:
    page = opened(report, width=360)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    outside = page.eval_on_selector_all(
        "main *",
        "all => all.filter(each => !each.closest('.scroll') && each.getBoundingClientRect().right > 361)"
        ".map(each => each.outerHTML.slice(0, 80))",
    )
    assert outside == []


def test_charts_follow_when_the_reader_switches_to_dark(opened: Callable[..., "Page"], report: Path) -> None:
    page = opened(report)
    ink = "getComputedStyle(document.querySelector('#curves .xtick text')).fill"
    assert page.evaluate(ink) == "rgb(28, 33, 38)"
    page.emulate_media(color_scheme="dark")
    _wait_for(page, f"{ink} === 'rgb(230, 233, 236)'")


def test_a_window_that_is_made_narrower_has_narrower_charts(opened: Callable[..., "Page"], report: Path) -> None:
    page = opened(report)
    page.set_viewport_size({"width": 500, "height": 900})
    _wait_for(page, "document.querySelector('#curves .main-svg').getBoundingClientRect().right <= 500")


def test_paper_is_light_and_no_chart_is_cut(opened: Callable[..., "Page"], report: Path) -> None:
    page = opened(report, colours="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.querySelector('#curves .xtick text')).fill") == "rgb(28, 33, 38)"
    widths = page.eval_on_selector_all(".main-svg", "all => all.map(each => each.getBoundingClientRect().width)")
    assert max(widths) <= 688  # what A4 leaves between its margins
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"


def test_the_classes_of_kmnist_are_seen_without_a_japanese_font(opened: Callable[..., "Page"], report: Path) -> None:
    page = opened(report)
    places = ("h1", "#curves .xtitle")
    for place in places:
        page.evaluate(f"document.querySelector('{place}').textContent = 'おきすつなはまやれを'")
    session = page.context.new_cdp_session(page)
    session.send("DOM.enable")
    session.send("CSS.enable")
    root = session.send("DOM.getDocument")["root"]["nodeId"]
    for place in places:
        node = session.send("DOM.querySelector", {"nodeId": root, "selector": place})["nodeId"]
        (font,) = session.send("CSS.getPlatformFontsForNode", {"nodeId": node})["fonts"]
        assert (font["familyName"], font["isCustomFont"], font["glyphCount"]) == ("KMNIST Hiragana", True, 10)


def test_the_pointer_on_the_front_is_told_trial_and_settings(opened: Callable[..., "Page"], report: Path) -> None:
    page = opened(report)
    dot = page.locator("#size .points path").last  # the front is drawn on top
    dot.scroll_into_view_if_needed()
    box = dot.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    _wait_for(page, "document.querySelector('#size .hovertext .nums') !== null")
    told, which = page.evaluate(
        "['nums', 'name'].map(e => document.querySelector(`#size .hovertext .${e}`).textContent)"
    )
    assert re.fullmatch(r"trial \d+: [\d.]+%, [\d,]+ parameterslearning_rate [\d.]+dim (8|16)", told), told
    assert which == "Pareto front"


def test_the_markdown_has_the_same_headline_as_the_page(opened: Callable[..., "Page"], report: Path) -> None:
    text = report.with_name("report.md").read_text()
    headline = opened(report).locator(".figure-of-all").inner_text()
    assert text.startswith(f"# tiny: {headline} test accuracy\n")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {row.count("|") - row.count("\\|") for row in rows} == {4, 5, 6, 7}
