"""Which characters a terminal is trusted with. What fills the screen is in `acceptance/test_watching.py`."""

import io
import sys
from collections.abc import Mapping

import pytest
from rich.console import Console

from kmnist_search.watch.screen import can_fill, settle_encoding


@pytest.mark.parametrize(
    ("environ", "encoding"),
    [
        ({}, "utf-8"),
        ({"LANG": "en_GB.UTF-8"}, "utf-8"),
        ({"LANG": "C"}, "ascii"),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, "ascii"),  # which Python has set
        ({"LANG": "C", "LC_CTYPE": "en_GB.UTF-8"}, "utf-8"),
        ({"LANG": "en_GB.UTF-8", "LC_CTYPE": "POSIX"}, "ascii"),
        ({"LANG": "en_GB.UTF-8", "LC_ALL": "C"}, "ascii"),
        ({"LANG": "C", "LC_ALL": "C.UTF-8"}, "utf-8"),
    ],
)
def test_where_the_locale_is_c_only_ascii_gets_out(
    environ: Mapping[str, str], encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", terminal)
    console = Console()
    settle_encoding(console, environ)
    assert terminal.encoding == encoding
    assert console.options.ascii_only == (encoding == "ascii")
    console.print("▁")
    terminal.flush()
    assert terminal.buffer.getvalue().isascii() == (encoding == "ascii")


def test_only_a_terminal_that_moves_its_cursor_is_filled() -> None:
    assert can_fill(Console(force_terminal=True, _environ={"TERM": "xterm"}))
    assert not can_fill(Console(force_terminal=True, _environ={"TERM": "dumb"}))
    assert not can_fill(Console(file=io.StringIO(), _environ={"TERM": "xterm"}))
