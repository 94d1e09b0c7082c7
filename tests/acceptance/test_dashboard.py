"""The dashboard as a real process: asked over HTTP, and looked at in a real Chromium."""

import json
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.command import Command
from tests.support.postgres import PostgresServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Response

pytestmark = pytest.mark.slow

PLOT = ".js-plotly-plot .main-svg"
#: The texts of the elements in one that are wider than their place.
OVERFLOWING = """card => [card, ...card.querySelectorAll("*")]
    .filter(each => each.scrollWidth > each.clientWidth && getComputedStyle(each).display !== "inline")
    .map(each => each.textContent)"""
Run = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., Command]


def _url(serving: Command) -> str:
    serving.wait_for(lambda: "Ctrl-C" in serving.output)
    found = re.search(r"(http://[\d.]+:\d+)/dashboard", serving.output)
    assert found is not None
    return found[1].replace("0.0.0.0", "127.0.0.1")


def _end(serving: Command) -> None:
    serving.process.send_signal(signal.SIGINT)
    assert serving.ended() == 0
    assert "Traceback" not in serving.output


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium: install it (Debian: apt-get install chromium) to see the dashboard as a reader does")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


class Reader:
    """A person at a browser; what went wrong in its console is kept."""

    def __init__(self, browser: "Browser", url: str, *, user: str = "", password: str = "") -> None:
        credentials = {"username": user, "password": password} if user else None
        self.context = browser.new_context(
            viewport={"width": 1200, "height": 1500},
            http_credentials=credentials,  # type: ignore[arg-type]
        )
        self.url, self.page = url, self.context.new_page()
        self.wrong: list[str] = []
        self.page.on(
            "console", lambda said: self.wrong.append(said.text) if said.type in ("error", "warning") else None
        )
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))

    def open(self, path: str) -> "Response":
        response = self.page.goto(f"{self.url}{path}")
        assert response is not None
        return response

    def sees(self, selector: str, *, seconds: float = 60) -> None:
        self.page.locator(selector).first.wait_for(timeout=1000 * seconds)


def test_the_dashboard_prints_its_url_and_shows_the_study_as_soon_as_there_is_one(
    tiny_study: Path, start: Start, command: Run, browser: "Browser"
) -> None:
    serving = start("dashboard", "--port", "0")
    url = _url(serving)
    try:
        assert "Nothing to show yet: there is no database at " in serving.output
        reader = Reader(browser, url)
        assert reader.open("/dashboard").status == 200
        assert command("run", "tiny.toml", "--trials", "3").returncode == 0
        reader.open("/")
        reader.page.get_by_text("1. tiny").click()
        reader.sees(PLOT)
        reader.open("/dashboard/studies/1/analytics")
        reader.sees(PLOT)
        reader.open("/dashboard/studies/1/note")
        reader.page.locator("button:has([data-testid=EditIcon])").click()
        reader.page.locator("textarea").first.fill("# What I **think**")
        reader.page.get_by_role("button", name="Save").click()
        reader.sees("h1:has-text('What I think') strong")
        assert reader.wrong == []
        with urllib.request.urlopen(f"{url}/api/studies", timeout=120) as answer:  # by a program, not a browser
            assert [study["study_name"] for study in json.load(answer)["study_summaries"]] == ["tiny"]
    finally:
        _end(serving)


#: The pages of a study by what is seen once they are drawn.
PAGES = {
    "/dashboard": "text=1. tiny",
    "/dashboard/studies/1": PLOT,
    "/dashboard/studies/1/analytics": PLOT,
    "/dashboard/studies/1/trials?numbers=0": "img[src*='/artifacts/']",
    "/dashboard/studies/1/trials?numbers=0,1,2": "h4:has-text('Trial 2')",
    "/dashboard/studies/1/smartSelection": "td:has-text('Complete')",  # the table of trials
    "/dashboard/studies/1/note": "pre",
}


def test_no_page_is_wider_than_the_window_and_the_best_value_stays_in_its_card(
    tiny_study: Path, tmp_path: Path, start: Start, command: Run, browser: "Browser"
) -> None:
    assert command("run", "tiny.toml", "--trials", "3", "--set", "study.pruner=none").returncode == 0
    with closing(sqlite3.connect(tmp_path / "kmnist-search.db")) as database, database:
        # Attributes and values of any length, as another program or an earlier version may have written them.
        database.execute(
            "INSERT INTO trial_user_attributes (trial_id, key, value_json) SELECT trial_id, 'remark', ? FROM trials",
            (json.dumps("a long remark " * 500),),
        )
        database.execute("UPDATE trial_values SET value = 0.9791666666666666")
    serving = start("dashboard", "--port", "0", "--read-only")
    try:
        reader = Reader(browser, _url(serving))
        for width in (1280, 820):
            reader.page.set_viewport_size({"width": width, "height": 900})
            for path, drawn in PAGES.items():
                reader.open(path)
                reader.sees(drawn)
                widest = reader.page.evaluate("document.documentElement.scrollWidth")
                assert widest <= width, f"{path} is {widest} pixels wide in a window of {width}"
            reader.open("/dashboard/studies/1")
            card = reader.page.locator(".MuiCard-root:has-text('Best Trial')")
            card.get_by_text("0.979167", exact=True).wait_for()
            assert card.evaluate(OVERFLOWING) == []
    finally:
        _end(serving)


def test_who_knows_the_password_sees_a_study_on_postgres_changes_nothing_and_waits_while_it_is_away(
    tiny_study: Path, tmp_path: Path, start: Start, command: Run, browser: "Browser"
) -> None:
    server = PostgresServer()
    try:
        where = ("--storage", server.new_database())
        assert command("run", "tiny.toml", "--trials", "3", *where).returncode == 0
        password = tmp_path / "password"
        password.touch(mode=0o600)
        password.write_text("correct horse\n")
        how = ("--host", "0.0.0.0", "--port", "0", "--read-only", "--password-file", str(password))
        serving = start("dashboard", *where, *how)
        try:
            _look(browser, _url(serving), server)
        finally:
            _end(serving)
        assert "read-only, user kmnist: http://" in serving.output
        assert "correct horse" not in serving.output
        assert "A wrong user name or password came from 127.0.0.1." in serving.output
        said = [line for line in serving.output.splitlines() if " cannot be reached now: " in line]
        assert len(said) == 1, "once, not at each poll"
    finally:
        server.stop()


def _look(browser: "Browser", url: str, server: PostgresServer) -> None:
    from playwright.sync_api import Error

    stranger = Reader(browser, url, user="kmnist", password="wrong horse")
    with suppress(Error):  # Chromium shows the answer, or only that the login is wrong
        assert stranger.open("/dashboard").status == 401
    assert "tiny" not in stranger.page.content()
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{url}/dashboard", timeout=120)
    reader = Reader(browser, url, user="kmnist", password="correct horse")
    reader.open("/dashboard/studies/1")
    reader.sees(PLOT)
    assert reader.wrong == []
    deleted = reader.page.evaluate(
        "fetch('/api/studies/1', {method: 'DELETE'}).then(async each => [each.status, (await each.json()).reason])"
    )
    assert deleted == [403, "This dashboard is read-only, so nothing was changed."]
    reader.sees("#kmnist-search-banner:has-text('This dashboard is read-only')")
    server.kill()
    _wait_for(reader, 503)
    reader.sees("#kmnist-search-banner:has-text('cannot be reached now')")
    _wait_until(lambda: reader.open("/dashboard").status == 503)  # the list of studies, too, is shown for a moment
    reader.sees("h1:has-text('The database is away')")
    server.start()
    reader.sees("text=1. tiny")  # the page tries again by itself
    _wait_for(reader, 200)


def _wait_for(reader: Reader, status: int) -> None:
    """Ask until the answer is as expected: what was read is shown for a moment."""
    _wait_until(lambda: reader.context.request.get(f"{reader.url}/api/studies/1?after=0").status == status)


def _wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_port_in_use_is_refused_with_the_way_out(command: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = command("dashboard", "--port", str(port))
    assert refused.returncode == 2
    message = f"Error: port {port} of 127.0.0.1 cannot be used: Address already in use. Choose another with --port.\n"
    assert refused.stderr.endswith(message)
