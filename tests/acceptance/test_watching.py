"""`status --watch` in a real terminal: it shows a search, follows it, and leaves the terminal clean."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.command import TINY_STUDY
from tests.support.forked import Forked, forks, wait_until
from tests.support.on_screen import CTRL_C, CTRL_Z, OnScreen, on_screen
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.slow

ARGUMENTS = ("run", "tiny.toml", "--trials", "300", "--set", "train.epochs=40", "--set", "study.pruner=none")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a search goes on."""
    folder = tmp_path_factory.mktemp("search")
    (folder / "tiny.toml").write_text(TINY_STUDY)
    return folder


@pytest.fixture(scope="module")
def search(folder: Path) -> Iterator[Forked]:
    with forks(folder) as start:
        run = start(*ARGUMENTS)
        wait_until(lambda: "trial 2 complete" in run.output, run)
        yield run


def _seen_at_work(screen: OnScreen) -> list[str]:
    return screen.wait_for(lambda lines: "trial running" in "\n".join(lines) and "trials/hour" in "\n".join(lines))


def test_a_search_fills_the_screen_of_any_size_and_ctrl_c_leaves_it_clean(search: Forked, folder: Path) -> None:
    with on_screen("status", "--watch", folder=folder) as screen:
        lines = _seen_at_work(screen)
        assert lines[0].startswith(" study tiny  running  seen at ")
        assert lines[1].split()[1:4] == ["of", "300", "finished"]
        assert "about " in lines[3]
        assert re.match(r" best     val_accuracy \d+\.\d\d %", lines[4])
        assert any("1 worker ─" in line for line in lines)
        assert lines[22].startswith(" Ctrl-C leaves")
        assert screen.cursor_is_hidden
        assert not screen.echoes

        screen.resize(columns=120, lines=40)
        lines = screen.wait_for(lambda lines: lines[38].startswith(" Ctrl-C leaves"))
        assert max(map(len, lines)) > 110

        screen.type(CTRL_Z)
        process = psutil.Process(screen.process.pid)
        wait_until(lambda: process.status() == psutil.STATUS_STOPPED)
        assert screen.lines
        assert screen.left_behind() == "\x1b[?25h"
        written = len(screen.said)
        screen.signal(signal.SIGCONT)
        screen.wait_for(lambda lines: screen.said.find(b" study ", written) > 0)
        assert not screen.echoes

        screen.type(CTRL_C)
        assert screen.ended() == 0
        assert "of 300" in screen.left_behind()
    assert search.exit_code is None  # watching has stopped nothing


def test_sigterm_leaves_the_terminal_clean_too(search: Forked, folder: Path) -> None:
    with on_screen("status", "--watch", folder=folder) as screen:
        _seen_at_work(screen)
        screen.signal(signal.SIGTERM)
        assert screen.ended() == 128 + signal.SIGTERM
        assert "of 300" in screen.left_behind()


def test_a_database_that_is_away_is_told_and_a_study_that_was_deleted_ends_it(tiny_study: Path, tmp_path: Path) -> None:
    server = PostgresServer()
    try:
        url = server.new_database()
        with forks(tmp_path) as start:
            start.finished("run", "tiny.toml", "--trials", "3", "--storage", url)
            with on_screen("status", "--watch", "--storage", url, folder=tmp_path) as screen:
                screen.wait_for(lambda lines: "3 of 3 finished" in lines[1])
                server.kill()
                lines = screen.wait_for(lambda lines: "the database is away for " in lines[1])
                assert "3 of 3 finished" in lines[2]
                server.start()
                screen.wait_for(lambda lines: "3 of 3 finished" in lines[1])
                start.finished("studies", "delete", "tiny", "--yes", "--storage", url)
                assert screen.ended() == 2
                left = screen.left_behind()
                assert "3 of 3" in left
                assert "was deleted in the meantime." in left
    finally:
        server.stop()


def test_who_waits_for_a_queue_sees_it_go_on_and_then_how_it_ended(tiny_study: Path, tmp_path: Path) -> None:
    arguments = ("submit", "queue", "tiny.toml", "--trials", "3", "--watch")
    with forks(tmp_path) as start, on_screen(*arguments, folder=tmp_path) as screen:
        screen.wait_for(lambda lines: any("To resume: kmnist-search worker tiny" in line for line in lines))
        start.finished("worker", "tiny")
        assert screen.ended() == 0
        left = screen.left_behind()
    assert "Done: 3 of 3 trials are finished." in left
    assert re.search(r"best: val_accuracy \d+\.\d\d %", left)
