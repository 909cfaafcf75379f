"""A table as text, which every writer lays out in its own way."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pandas as pd
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Collection

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

    def to_terminal(self, left: Collection[str] = ()) -> Table:
        """Lay the table out for a terminal.

        Args:
            left: columns that are aligned to the left, besides the first one.
        """
        table = Table(box=None, pad_edge=False, header_style="bold")
        for position, name in enumerate(self.columns):
            table.add_column(name, justify="left" if position == 0 or name in left else "right")
        for row in self.rows:
            table.add_row(*map(escape, row))
        return table

    def to_markdown(self) -> list[str]:
        """Return the lines of a Markdown table."""
        rule = ("---", *["---:"] * (len(self.columns) - 1))
        cells = [
            [_MARKUP.sub(r"\\\g<0>", cell) for cell in line] for line in (self.columns, *self.rows)
        ]
        return [f"| {' | '.join(line)} |" for line in (cells[0], rule, *cells[1:])]

    def to_latex(self, caption: str) -> str:
        r"""Return a LaTeX `table` environment, which needs `\usepackage{booktabs}`.

        Every character that LaTeX reads as a command is escaped. pdflatex takes names in Latin
        script, others need xelatex or lualatex.
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
