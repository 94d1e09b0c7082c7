"""One line of text in a terminal, and in the log."""

import logging

from rich.console import Console

#: Gets every line; without a handler and the level INFO it keeps none.
LOG = logging.getLogger("kmnist_search")


def print_line(console: Console, text: str) -> None:
    """Print a text without markup and highlighting, and log it.

    A terminal wraps it between words, unless it names a command: that can be copied as one line.
    """
    LOG.info(text)
    is_wrapped = console.is_terminal and "kmnist-search " not in text
    console.print(text, soft_wrap=not is_wrapped, highlight=False, markup=False)
