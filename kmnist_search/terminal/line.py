"""One line of text in a terminal or a log, printed as it is."""

from rich.console import Console


def print_line(console: Console, text: str) -> None:
    """Print a text without markup, colours for what looks like a number, or line breaks where the terminal ends."""
    console.print(text, soft_wrap=True, highlight=False, markup=False)
