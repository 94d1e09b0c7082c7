"""Lines of text that exactly fill part of a terminal: columns, sections, cut text."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

GAP = 2


@dataclass(frozen=True, kw_only=True)
class Page:
    """The space for lines, and whether only ASCII may be shown."""

    width: int
    ascii_only: bool

    def cut(self, line: Text) -> Text:
        """Return a line cut to fit, with a mark where it was cut."""
        line = line.copy()
        if self.ascii_only and line.cell_len > self.width:
            line.truncate(max(self.width - 2, 0), overflow="crop")
            return line.append("..")
        line.truncate(self.width, overflow="ellipsis")
        return line

    def section(self, title: Text, lines: Sequence[Text], height: int) -> list[Text]:
        """Return a title with a rule, and lines, in `height` lines; those left out are counted if there is space."""
        if not lines or height < 1:
            return []
        rule = ("-" if self.ascii_only else "─") * max(self.width - title.cell_len - 1, 0)
        head = self.cut(Text.assemble(title, " ", (rule, "dim")))
        if height <= 2 or height > len(lines):
            return [head, *lines[: height - 1]]
        return [head, *lines[: height - 2], Text(f" and {len(lines) - height + 2} more", style="dim")]

    def columns(self, rows: Sequence[Sequence[Text]], *, right: Sequence[int] = ()) -> list[Text]:
        """Return rows as lines with aligned cells; the columns in `right` are right-aligned."""
        if not rows:
            return []
        widths = [max(cell.cell_len for cell in column) for column in zip(*rows, strict=True)]
        kept = [index for index, width in enumerate(widths) if width]
        lines = []
        for row in rows:
            line = Text(" ")
            for index in kept:
                blank = " " * (widths[index] - row[index].cell_len)
                cell = Text(blank).append_text(row[index]) if index in right else row[index].copy().append(blank)
                line.append_text(cell).append(" " * GAP)
            line.rstrip()
            lines.append(self.cut(line))
        return lines


def shared_out(needed: Sequence[int], height: int) -> list[int]:
    """Return how many lines each gets: one line each in turn, until all have what they need or `height` is used up."""
    given = [0] * len(needed)
    while height > 0 and given != list(needed):
        for index, lines in enumerate(needed):
            if given[index] < lines and height > 0:
                given[index] += 1
                height -= 1
    return given
