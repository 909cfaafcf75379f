"""A table as text, which every writer lays out in its own way."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pandas as pd

from bench.errors import BenchError
from bench.report.tables.terminal import TerminalTable

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "±": r"$\pm$", "×": r"$\times$"}
)
# What GitHub's Markdown reads as markup within a line.
_MARKUP = re.compile(r"[\\`*~$|]|(?<![^\W_])_|_(?![^\W_])|<(?=[A-Za-z/!?])|](?=[(\[])|&(?=#?\w+;)")
_BLOCK = re.compile(r"^(\d+(?=[.)]\s)|(?=[#>\[]|[+-]\s))")  # at the beginning of a line
_SIGNED = re.compile(r"(?<![\w.])([+-]\d[\d.,]*)")


@dataclass(frozen=True)
class TextTable:
    """A table as text; one without a row is false.

    Attributes:
        columns: names of the columns; the first one names the rows.
        rows: cells, as many per row as there are columns.
        note: how to read it; empty if that is plain.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def __bool__(self) -> bool:
        """Whether there is a row."""
        return bool(self.rows)

    def first(self, count: int) -> TextTable:
        """Return the table with its first *count* rows."""
        return replace(self, rows=self.rows[:count])

    def chosen(self, names: Sequence[str]) -> TextTable:
        """Return the table with the first column and the columns called *names*, in their order.

        Args:
            names: names of columns, or unambiguous beginnings of them; case does not matter, and
                dashes stand for spaces.

        Raises:
            BenchError: no column, or more than one, is called so.
        """
        places = [0]
        for name in names:
            found = self._called(name)
            if len(found) != 1:
                what = "fits several columns" if found else "is no column"
                raise BenchError(
                    f"--columns: '{name.strip()}' {what} (columns: {', '.join(self.columns)})"
                )
            places += [found[0]] if found[0] not in places else []
        rows = [tuple(row[place] for place in places) for row in self.rows]
        return replace(self, columns=tuple(self.columns[i] for i in places), rows=tuple(rows))

    def _called(self, name: str) -> list[int]:
        """Return the places of the columns called so: wholly, else by first words or letters."""
        wanted, *columns = (
            text.strip().casefold().replace("-", " ") for text in (name, *self.columns)
        )
        for end in ("\n", " ", ""):
            found = [i for i, c in enumerate(columns) if f"{c}{end}".startswith(f"{wanted}{end}")]
            if found:
                return found
        return []

    def to_terminal(
        self, left: Collection[str] = (), prose: Collection[str] = (), needed: int = 1
    ) -> TerminalTable:
        """Lay the table out for a terminal of any width.

        Args:
            left: columns that are aligned to the left, besides the first one.
            prose: columns of text, which may be wrapped.
            needed: number of columns that are never left out.
        """
        return TerminalTable(self.columns, self.rows, left, prose, needed)

    def to_markdown(self) -> list[str]:
        """Return the lines of a Markdown table."""
        rule = ("---", *["---:"] * (len(self.columns) - 1))
        cells = [
            [_MARKUP.sub(r"\\\g<0>", cell) for cell in line] for line in (self.columns, *self.rows)
        ]
        return [f"| {' | '.join(line)} |" for line in (cells[0], rule, *cells[1:])]

    def to_latex(self, caption: str, label: str | None = None) -> str:
        r"""Return a LaTeX `table` environment, which needs `\usepackage{booktabs}`.

        Every character that LaTeX reads as a command is escaped. pdflatex takes names in Latin
        script, others need xelatex or lualatex.

        Args:
            caption: what stands above the table.
            label: its name for `\ref`; without spaces and characters that LaTeX reads as commands.
        """
        frame = pd.DataFrame(
            [[_latex_cell(cell, first=not i) for i, cell in enumerate(row)] for row in self.rows],
            columns=[cell.translate(_LATEX) for cell in self.columns],
        )
        return "% needs \\usepackage{booktabs}\n" + frame.style.hide(axis="index").to_latex(
            column_format="l" + "r" * (len(self.columns) - 1),
            position_float="centering",
            hrules=True,
            caption=caption.translate(_LATEX),
            label=label,
        )


def markdown_text(text: str) -> str:
    """Escape a line of text so that Markdown shows every character of it."""
    escaped = _MARKUP.sub(r"\\\g<0>", " ".join(text.split()))
    return _BLOCK.sub(r"\1\\", escaped)


def markdown_code(text: str) -> str:
    """Return text as a code span, between more backticks than it has in a row."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    padding = " " if text[:1] == "`" or text[-1:] == "`" else ""
    return f"{fence}{padding}{text}{padding}{fence}"


def _latex_cell(text: str, *, first: bool) -> str:
    escaped = text.translate(_LATEX)
    # A row that begins with [ would be read as the optional argument of the line break before it.
    return f"{{{escaped}}}" if first else _SIGNED.sub(r"$\1$", escaped)
