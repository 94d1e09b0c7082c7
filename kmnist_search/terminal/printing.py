"""One line of text in a terminal or a log."""

from rich.console import Console


def print_line(console: Console, text: str) -> None:
    """Print a text without markup and highlighting.

    A terminal wraps it between words, unless it names a command: that can be copied as one line.
    """
    is_wrapped = console.is_terminal and "kmnist-search " not in text
    console.print(text, soft_wrap=not is_wrapped, highlight=False, markup=False)
