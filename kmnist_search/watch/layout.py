"""Lines of text that exactly fill part of a terminal: columns, titles, cut text."""

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

    def title(self, text: Text) -> Text:
        """Return a title with a rule to the end of the line."""
        rule = ("-" if self.ascii_only else "─") * max(self.width - text.cell_len - 1, 0)
        return self.cut(Text.assemble(text, " ", (rule, "dim")))

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


@dataclass(frozen=True, kw_only=True)
class Section:
    """A title and lines, of which the last may be left out; without lines there is no title."""

    title: Text
    lines: Sequence[Text]

    @property
    def wanted(self) -> int:
        return len(self.lines) + 1 if self.lines else 0

    def shown(self, page: Page, room: int) -> list[Text]:
        """Return title and lines in `room` lines; lines left out are counted, if there is space for that."""
        if not self.lines or room < 1:
            return []
        kept = room - 1 if room in (2, self.wanted) else room - 2
        left_out = [Text(f" and {len(self.lines) - kept} more", style="dim")] if 2 < room < self.wanted else []
        return [page.title(self.title), *self.lines[: max(kept, 0)], *left_out]


def shared_out(wanted: Sequence[int], room: int) -> list[int]:
    """Return how many lines each gets: one line each in turn, until all have what they want or `room` is used up."""
    given = [0] * len(wanted)
    while room > 0 and given != list(wanted):
        for index, wants in enumerate(wanted):
            if given[index] < wants and room > 0:
                given[index] += 1
                room -= 1
    return given
