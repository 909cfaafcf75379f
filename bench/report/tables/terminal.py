"""Tables for terminals of any width: no cell is cut.

Imports neither torch nor pandas, so that short commands start fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from rich.console import Console, ConsoleOptions, RenderResult

_GAP = 2  # spaces between columns
_PROSE = 20  # columns that text needs to be readable
_SEPARATOR = " · "


@dataclass(frozen=True)
class TerminalTable:
    """A table that Rich prints whole, without its last columns, or stacked.

    Where the columns do not fit, texts are wrapped at spaces, the first column may take two lines,
    and figures are broken before a bracket `(`; then the last columns are left out and named below.
    If not even the needed ones fit, every row becomes a paragraph of all its cells.

    Attributes:
        columns: names of the columns, the important ones first.
        rows: cells, as many per row as there are columns.
        left: columns that are aligned to the left, besides the first one.
        prose: columns of text, which may be wrapped and are aligned to the left.
        needed: number of columns that are never left out.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: Collection[str] = ()
    prose: Collection[str] = ()
    needed: int = 1

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lay the table out in the width of the console."""
        least, most = self._widths()
        count = _fitting(least, options.max_width)
        if count < min(self.needed, len(self.columns)):
            yield from self._stacked(options.max_width)
            return
        yield self._table(_spread(least[:count], most[:count], options.max_width))
        if left_out := self.columns[count:]:
            yield Text(f"Not shown at this width: {', '.join(left_out)}", style="dim")

    def _widths(self) -> tuple[list[int], list[int]]:
        """Return the width that each column needs at least, and the one that it can use."""
        least, most = [], []
        for place, name in enumerate(self.columns):
            cells = [row[place] for row in self.rows]
            longest = wrapped = max(map(cell_len, cells), default=0)
            if name in self.prose:
                words = max(map(_longest_word, cells), default=0)
                wrapped = min(longest, max(words, _PROSE))
            elif place == 0:
                wrapped = max(map(_in_two_lines, cells), default=0)
            else:
                wrapped = max((cell_len(part) for c in cells for part in _parts(c)), default=0)
            least.append(max(wrapped, _longest_word(name)))
            most.append(max(longest, cell_len(name)))
        return least, most

    def _table(self, widths: Sequence[int]) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for place, width in enumerate(widths):
            name = self.columns[place]
            left = place == 0 or name in self.left or name in self.prose
            table.add_column(
                escape(name), justify="left" if left else "right", width=width, overflow="fold"
            )
        for row in self.rows:
            cells = zip(self.columns, row, widths, strict=False)
            table.add_row(*(escape(self._fitted(*cell)) for cell in cells))
        return table

    def _fitted(self, name: str, cell: str, width: int) -> str:
        """Break a figure that is too wide before its bracket; Rich breaks texts at spaces."""
        if cell_len(cell) <= width or name in self.prose:
            return cell
        return "\n".join(_parts(cell))

    def _stacked(self, room: int) -> RenderResult:
        for first, *cells in self.rows:
            yield Text(first, style="bold")
            line = ""
            for name, cell in zip(self.columns[1:], cells, strict=True):
                longer = f"{line}{_SEPARATOR if line else ''}{name} {cell}"
                if cell and line and cell_len(longer) > room - _GAP:
                    yield Padding(Text(line), (0, 0, 0, _GAP), expand=False)
                    line = f"{name} {cell}"
                elif cell:
                    line = longer
            yield Padding(Text(line), (0, 0, 0, _GAP), expand=False)


def _fitting(widths: Sequence[int], room: int) -> int:
    """Return how many of the first columns fit."""
    used = -_GAP
    for count, width in enumerate(widths):
        used += width + _GAP
        if used > room:
            return count
    return len(widths)


def _spread(least: Sequence[int], most: Sequence[int], room: int) -> list[int]:
    """Widen columns from the left, as far as there is room."""
    widths = list(least)
    spare = room - sum(widths) - _GAP * (len(widths) - 1)
    for place, wanted in enumerate(most):
        added = min(spare, wanted - widths[place])
        widths[place] += added
        spare -= added
    return widths


def _parts(figure: str) -> list[str]:
    """Return a figure and its remark in brackets, as in `90.1 (1 seed)`."""
    first, bracket, rest = figure.partition(" (")
    return [first, f"({rest}"] if bracket else [first]


def _in_two_lines(text: str) -> int:
    """Return the width that a text needs on two lines, broken at a space."""
    words = text.split(" ")
    halves = ((" ".join(words[:i]), " ".join(words[i:])) for i in range(len(words)))
    return min(max(map(cell_len, pair)) for pair in halves)


def _longest_word(text: str) -> int:
    return max(map(cell_len, text.split()), default=0)
