"""Tests of terminal/control_keys.py in a real terminal: ^C is not shown while a table is redrawn, and is afterwards."""

import fcntl
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Iterator

import pytest

WITHIN = "from kmnist_search.terminal.control_keys import no_control_keys_shown\n"
#: Says when it has entered, and leaves at the next line of input.
ENTER = "with no_control_keys_shown():\n    print('entered', flush=True)\n    sys.stdin.readline()\n"


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def shows_control_keys(terminal: int) -> bool:
    return bool(termios.tcgetattr(terminal)[3] & termios.ECHOCTL)


def start(terminal: int, script: str) -> "subprocess.Popen[str]":
    """Start Python in a session of its own, with this terminal."""

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    return subprocess.Popen(
        [sys.executable, "-c", f"import os, signal, sys\n{WITHIN}{script}"],
        stdin=terminal,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=take_terminal,
    )


def test_control_keys_are_not_shown_within_and_are_shown_again_afterwards(terminal: tuple[int, int]) -> None:
    ours, theirs = terminal
    process = start(theirs, ENTER)
    assert process.stdout is not None
    assert process.stdout.readline() == "entered\n"
    assert not shows_control_keys(theirs)
    os.write(ours, b"\n")
    assert process.wait(timeout=240) == 0
    assert shows_control_keys(theirs)


def test_a_process_in_the_background_leaves_the_terminal_alone_and_is_not_stopped(terminal: tuple[int, int]) -> None:
    within = "    os.setpgid(0, 0)\n    with no_control_keys_shown():\n        print('entered')\n"
    process = start(terminal[1], f"if os.fork() == 0:\n{within}else:\n    print(os.wait()[1])")
    assert process.communicate(timeout=240)[0] == "entered\n0\n"
