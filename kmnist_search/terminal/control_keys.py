"""Control keys, such as Ctrl-C, without their echo in a terminal."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

try:
    import termios
except ImportError:  # Windows
    termios = None  # type: ignore[assignment]


@contextmanager
def no_control_keys_shown() -> Iterator[None]:
    """While entered, the terminal does not write ^C, which would displace a table that is redrawn."""
    if termios is None or not _is_in_foreground():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    _set([*before[:3], before[3] & ~termios.ECHOCTL, *before[4:]])
    try:
        yield
    finally:
        _set(before)


def _set(attributes: list[Any]) -> None:
    """Change the terminal, which would stop a process in the background; there the shell sets it for itself."""
    if _is_in_foreground():
        termios.tcsetattr(sys.stdin, termios.TCSANOW, attributes)


def _is_in_foreground() -> bool:
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError):  # stdin is not this process's terminal, or closed
        return False
