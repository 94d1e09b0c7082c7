"""`kmnist-search` as a process in a terminal of its own: what is typed there, to be seen there, left behind there."""

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyte

from tests.support.forked import SERVER

#: What leaves the alternate screen and shows the cursor.
LEFT, CURSOR = b"\x1b[?1049l", b"\x1b[?25h"
#: What each drawing of the screen begins with.
HOME = b"\x1b[H"
CTRL_C, CTRL_Z = b"\x03", b"\x1a"


class OnScreen:
    """A running command in a terminal, which `pyte` draws.

    Attributes:
        said: all that it has written.
    """

    def __init__(self, arguments: tuple[str, ...], folder: Path, *, columns: int, lines: int) -> None:
        self._master, self._slave = pty.openpty()
        self.said = bytearray()
        self._drawn = 0
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self.resize(columns=columns, lines=lines)
        self.process = SERVER.Process(
            target=_be_the_command, args=(arguments, folder, os.ttyname(self._slave)), daemon=True
        )
        self.process.start()

    @property
    def lines(self) -> list[str]:
        """The last whole drawing; that a drawing is whole is known when the next one begins."""
        while select.select([self._master], [], [], 0)[0]:
            self.said += os.read(self._master, 1 << 16)
        begun = self.said.rfind(HOME, self._drawn)
        if begun > self._drawn:
            self._stream.feed(bytes(self.said[self._drawn : begun]))
            self._drawn = begun
        return [line.rstrip() for line in self._screen.display]

    @property
    def cursor_is_hidden(self) -> bool:
        return bool(self._screen.cursor.hidden)

    @property
    def echoes(self) -> bool:
        """Whether what is typed is shown."""
        return bool(termios.tcgetattr(self._slave)[3] & termios.ECHO)

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def resize(self, *, columns: int, lines: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._screen.resize(lines, columns)

    def signal(self, number: signal.Signals) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def wait_for(self, is_seen: Callable[[list[str]], bool], *, seconds: float = 240) -> list[str]:
        """Wait until that is to be seen, and return the lines."""
        deadline = time.monotonic() + seconds
        while not is_seen(lines := self.lines):
            shown = "\n".join(lines)
            assert self.process.is_alive(), f"ended with {self.process.exitcode}:\n{shown}"
            assert time.monotonic() < deadline, f"waited {seconds} s in vain:\n{shown}"
            time.sleep(0.05)
        return lines

    def ended(self, *, seconds: float = 240) -> int:
        """Wait for its end and return the exit code."""
        deadline = time.monotonic() + seconds
        while self.process.is_alive():
            shown = "\n".join(self.lines)
            assert time.monotonic() < deadline, f"still runs after {seconds} s:\n{shown}"
            time.sleep(0.02)
        assert self.lines
        assert self.process.exitcode is not None
        return self.process.exitcode

    def left_behind(self) -> str:
        """Return what it wrote after it left the alternate screen with the cursor shown, as text with its colours."""
        before, left, after = bytes(self.said).rpartition(LEFT)
        assert left, before[-2000:]
        assert CURSOR in after
        assert b"\x1b[?25l" not in after
        assert self.echoes
        return after.decode()

    def close(self) -> None:
        self.process.kill()
        self.process.join()
        os.close(self._master)
        os.close(self._slave)


@contextmanager
def on_screen(*arguments: str, folder: Path, columns: int = 80, lines: int = 24) -> Iterator[OnScreen]:
    """Start a command in a terminal of that size, and end it at the end if it has not ended."""
    command = OnScreen(arguments, folder, columns=columns, lines=lines)
    try:
        yield command
    finally:
        command.close()


def _be_the_command(arguments: tuple[str, ...], folder: Path, terminal: str) -> None:
    from kmnist_search.cli.main import main

    os.setsid()
    opened = os.open(terminal, os.O_RDWR)
    fcntl.ioctl(opened, termios.TIOCSCTTY, 0)
    for number in range(3):
        os.dup2(opened, number)
    sys.stdin = os.fdopen(0, closefd=False)  # it was closed to what multiprocessing starts
    os.chdir(folder)
    for name in [name for name in os.environ if name.startswith("KMNIST_SEARCH_")]:
        del os.environ[name]
    os.environ.update(TERM="xterm-256color", LC_ALL="C.UTF-8")
    for name in ("NO_COLOR", "COLUMNS", "LINES"):
        os.environ.pop(name, None)
    sys.argv = ["kmnist-search", *arguments]
    main()
