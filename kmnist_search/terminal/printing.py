"""One line of text in a terminal or a log, printed unchanged."""

from rich.console import Console


def print_line(console: Console, text: str) -> None:
    """Print a text without markup, highlighting or wrapping."""
    console.print(text, soft_wrap=True, highlight=False, markup=False)
