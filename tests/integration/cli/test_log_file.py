"""`--log-file`: each line that is shown also goes to a file, with its time."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Invoke = Callable[..., Result]

pytestmark = pytest.mark.usefixtures("one_thread")

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  (.*)")


def _lines(file: Path) -> list[str]:
    matches = [LINE.fullmatch(line) for line in file.read_text().splitlines()]
    assert all(matches)
    return [match[1] for match in matches if match]


def test_the_log_holds_what_was_shown_and_a_second_run_appends(invoke: Invoke, tmp_path: Path) -> None:
    run = ("run", "tiny.toml", "--workers", "1", "--log-file", "search.log", "--trials")
    first, second = invoke(*run, "2"), invoke(*run, "3")
    assert _lines(tmp_path / "search.log") == [*first.output.splitlines(), *second.output.splitlines()]


def test_an_error_is_logged_and_the_next_command_without_a_log_adds_nothing(invoke: Invoke, tmp_path: Path) -> None:
    refused = invoke("run", "tiny.toml", "--log-file", "search.log", "--target", "98")
    assert refused.exit_code == 2
    assert _lines(tmp_path / "search.log") == refused.output.splitlines()
    assert invoke("run", "tiny.toml", "--trials", "1", "--workers", "1").exit_code == 0
    assert len(_lines(tmp_path / "search.log")) == 1


def test_a_log_that_cannot_be_written_is_refused_before_any_work(invoke: Invoke, tmp_path: Path) -> None:
    refused = invoke("run", "tiny.toml", "--log-file", "nowhere/search.log")
    assert refused.exit_code == 2
    assert "--log-file nowhere/search.log cannot be written: No such file or directory" in refused.output
    assert not (tmp_path / "kmnist-search.db").exists()
