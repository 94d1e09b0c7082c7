"""The full screen of a terminal, by `rich.live.Live`; it is always restored at the end."""

import os
import signal
import sys
import termios
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from queue import SimpleQueue
from types import FrameType
from typing import Any, Generic, TypeVar

from rich.console import Console, RenderableType
from rich.live import Live

#: Locales in which only ASCII is certain to be shown; Python treats them as UTF-8.
ASCII_LOCALES = ("C", "POSIX")
#: What Python itself sets LC_CTYPE to in the C locale.
COERCED = "C.UTF-8"
#: Redraw rate, for the clock, a resized terminal, and output of other programs.
DRAWINGS_A_SECOND = 2
SIGNALS = (signal.SIGTSTP, signal.SIGINT, signal.SIGTERM)

Item = TypeVar("Item")


def can_fill(console: Console) -> bool:
    """Return whether the console is a terminal that supports the full screen."""
    return console.is_terminal and not console.is_dumb_terminal


def settle_encoding(console: Console, environ: Mapping[str, str] = os.environ) -> None:
    """Write only ASCII if the user's locale allows no more."""
    coerced = environ.get("LC_CTYPE") in (None, "", COERCED)
    locale = environ.get("LC_ALL") or environ.get("LANG" if coerced else "LC_CTYPE")
    if locale in ASCII_LOCALES and console.file is sys.stdout and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="ascii", errors="replace")


class FullScreen(Generic[Item]):
    """A terminal's alternate screen, from entering to leaving; `put` may be called from any thread.

    Signals are only queued for `items`, so that they never interrupt output to the terminal.
    """

    def __init__(self, console: Console, picture: Callable[[], RenderableType]) -> None:
        """Store the arguments; the terminal stays untouched.

        Args:
            console: the terminal.
            picture: returns what to draw, as large as the terminal; called from another thread.
        """
        self.console = console
        self._live = Live(console=console, screen=True, get_renderable=picture, refresh_per_second=DRAWINGS_A_SECOND)
        self._items: SimpleQueue[Item | signal.Signals] = SimpleQueue()
        self._undo = ExitStack()
        self._settings: list[Any] | None = None

    def __enter__(self) -> "FullScreen[Item]":
        with ExitStack() as undo:
            for number in SIGNALS:
                undo.callback(signal.signal, number, signal.signal(number, self._note))
            undo.callback(self._give_back)
            self._take()
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def put(self, item: Item) -> None:
        """Queue an item for `items`."""
        self._items.put(item)

    def items(self) -> Iterator[Item]:
        """Yield the queued items forever. At Ctrl-Z, stop the process until it is continued.

        Raises:
            KeyboardInterrupt: at Ctrl-C.
            SystemExit: at SIGTERM.
        """
        while True:
            match self._items.get():
                case signal.SIGTSTP:
                    self._give_back()
                    os.kill(os.getpid(), signal.SIGSTOP)
                    self._take()
                case signal.SIGINT:
                    raise KeyboardInterrupt
                case signal.SIGTERM:
                    raise SystemExit(128 + signal.SIGTERM)
                case item:
                    yield item  # type: ignore[misc]  # all signals are handled above

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._items.put(signal.Signals(number))

    def _take(self) -> None:
        # This comes first: a background process is stopped here, before it touches the screen.
        self._settings = _without_echo()
        self._live.start(refresh=True)

    def _give_back(self) -> None:
        """Restore the terminal, and discard what was typed meanwhile."""
        try:
            self._live.stop()
            self.console.show_cursor(True)  # some terminals have one cursor per screen
        finally:
            if self._settings is not None:
                termios.tcsetattr(sys.stdin, termios.TCSAFLUSH, self._settings)


def _without_echo() -> list[Any] | None:
    """Turn off echo; return the settings before, or None if stdin is not a terminal."""
    if sys.stdin is None or not sys.stdin.isatty():
        return None
    before = termios.tcgetattr(sys.stdin)
    quiet = termios.tcgetattr(sys.stdin)
    quiet[3] &= ~termios.ECHO
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, quiet)
    return before
