"""The whole terminal for one picture, given back as it was, however that ends. Knows nothing of what is on it."""

import os
import signal
import sys
import termios
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from enum import Enum
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any, Generic, TypeVar

from rich.console import Console, RenderableType
from rich.control import Control
from rich.screen import Screen

#: Locales in which only ASCII is certain to be shown; Python takes them for UTF-8.
ASCII_LOCALES = ("C", "POSIX")
#: What Python itself sets LC_CTYPE to where the locale is C.
COERCED = "C.UTF-8"

News = TypeVar("News")


class Wish(Enum):
    """What a signal asks for."""

    REDRAW = "the terminal has another size"
    PAUSE = "Ctrl-Z"
    LEAVE = "Ctrl-C"
    END = "SIGTERM"


SIGNALS = {
    signal.SIGWINCH: Wish.REDRAW,
    signal.SIGTSTP: Wish.PAUSE,
    signal.SIGINT: Wish.LEAVE,
    signal.SIGTERM: Wish.END,
}


def can_fill(console: Console) -> bool:
    """Return whether there is a terminal that a picture can fill."""
    return console.is_terminal and not console.is_dumb_terminal


def settle_encoding(console: Console, environ: Mapping[str, str] = os.environ) -> None:
    """Let only ASCII out where the user's locale says that the terminal shows no more."""
    coerced = environ.get("LC_CTYPE") in (None, "", COERCED)
    locale = environ.get("LC_ALL") or environ.get("LANG" if coerced else "LC_CTYPE")
    if locale in ASCII_LOCALES and console.file is sys.stdout and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="ascii", errors="replace")


class FullScreen(Generic[News]):
    """A terminal in its alternate screen. To be entered, and left; `tell` may be called from any thread.

    Signals only leave a note for whoever calls `news`, so that none comes in the midst of a sequence of characters.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._notes: SimpleQueue[News | Wish] = SimpleQueue()
        self._undo = ExitStack()
        self._settings: list[Any] | None = None

    def __enter__(self) -> "FullScreen[News]":
        with ExitStack() as undone_if_it_breaks:
            for number in SIGNALS:
                undone_if_it_breaks.callback(signal.signal, number, signal.signal(number, self._note))
            undone_if_it_breaks.callback(self._give_back)
            self._take()
            self._undo = undone_if_it_breaks.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def tell(self, news: News) -> None:
        """Let `news` return this."""
        self._notes.put(news)

    def news(self, every: float) -> Iterator[News | None]:
        """Yield what was told, and None when it is time to draw anew: after `every` seconds, or in another size.

        Raises:
            KeyboardInterrupt: at Ctrl-C.
            SystemExit: at SIGTERM.
        """
        while True:
            try:
                note = self._notes.get(timeout=every)
            except Empty:
                yield None
                continue
            match note:
                case Wish.REDRAW:
                    yield None
                case Wish.PAUSE:
                    self._pause()
                    yield None
                case Wish.LEAVE:
                    raise KeyboardInterrupt
                case Wish.END:
                    raise SystemExit(128 + signal.SIGTERM)
                case _:
                    yield note

    def draw(self, picture: RenderableType) -> None:
        """Show a picture in place of the one before; what does not fit is cut off."""
        with self.console:  # one write, so that nobody sees half of it
            self.console.control(Control.home())
            self.console.print(Screen(picture), end="")

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._notes.put(SIGNALS[signal.Signals(number)])

    def _pause(self) -> None:
        """Stop as Ctrl-Z does, and go on when the shell says so."""
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take()

    def _take(self) -> None:
        # First of all: in the background this stops the process, which then has not touched the screen.
        self._settings = _without_echo()
        self.console.set_alt_screen(True)
        self.console.show_cursor(False)

    def _give_back(self) -> None:
        """Undo all of it; what was typed meanwhile was meant for nobody."""
        try:
            self.console.set_alt_screen(False)
            self.console.show_cursor(True)
        finally:
            if self._settings is not None:
                termios.tcsetattr(sys.stdin, termios.TCSAFLUSH, self._settings)


def _without_echo() -> list[Any] | None:
    """Let what is typed not be shown; return the settings before, None if there is no terminal to type at."""
    if sys.stdin is None or not sys.stdin.isatty():
        return None
    before = termios.tcgetattr(sys.stdin)
    quiet = termios.tcgetattr(sys.stdin)
    quiet[3] &= ~termios.ECHO
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, quiet)
    return before
