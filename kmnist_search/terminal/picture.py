"""The picture of a study in a terminal, which `run` and `status --watch` share: progress first, then listings."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kmnist_search.study.status import Progress
from kmnist_search.terminal.layout import Page, shared_out
from kmnist_search.terminal.listings import Listing
from kmnist_search.terminal.progress import Row, finished_bar

#: Width of a label.
LABEL = 10
#: The largest share of the width for the curve of a running trial.
CURVE_SHARE = 6


def head(progress: Progress, goal: int, rows: Sequence[Row], page: Page) -> list[Table | Text]:
    """Return a bar of how many of `goal` trials are finished, and labelled rows, one line each."""
    lines = [Text.assemble((f" {label:<{LABEL - 1}}", "dim"), text) for label, text in rows]
    return [finished_bar(progress, goal), *(page.cut(line) for line in lines)]


def folded(text: Text, page: Page, most: int) -> list[Text]:
    """Return the text of a row on at most `most` lines; the last one may be too long."""
    lines = text.wrap(Console(width=page.width), max(page.width - LABEL - 1, 1))
    for line in lines:
        line.rstrip()
    return [line for line in [*lines[: most - 1], Text(" ").join(lines[most - 1 :])] if line]


def sections(listings: Sequence[Listing], page: Page, height: int) -> list[Text]:
    """Return listings in at most `height` lines; what does not fit is counted."""
    drawn = [(each.title, page.columns(each.rows, right=each.right)) for each in listings]
    heights = shared_out([len(lines) + 1 if lines else 0 for _, lines in drawn], height)
    return [
        line for (title, lines), given in zip(drawn, heights, strict=True) for line in page.section(title, lines, given)
    ]
