"""A study's table for a paper: LaTeX with the rules of booktabs."""

from __future__ import annotations

import re

_ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "<": r"\textless{}", ">": r"\textgreater{}", "×": r"$\times$",
}  # fmt: skip
_NUMBER = re.compile(r"(?<![\w.])([+-]\d[\d.,]*)")


def latex_table(rows: list[list[str]], caption: str) -> str:
    """Return rows, the first of them headings, as a `table` environment.

    Args:
        rows: cells as text; every character that LaTeX reads as a command is escaped. pdflatex
            takes names in Latin script, others need xelatex or lualatex.
        caption: of the table.
    """
    headings, *body = [[_cell(cell, first=not i) for i, cell in enumerate(row)] for row in rows]
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{escape(caption)}}}",
        rf"  \begin{{tabular}}{{l{'r' * (len(headings) - 1)}}}",
        r"    \toprule",
        f"    {' & '.join(headings)} \\\\",
        r"    \midrule",
        *(f"    {' & '.join(row)} \\\\" for row in body),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Escape what LaTeX would read as a command."""
    return "".join(_ESCAPES.get(character, character) for character in text)


def _cell(text: str, *, first: bool) -> str:
    escaped = escape(text)
    # A row that begins with [ would be read as the length that a line break may take.
    return f"{{{escaped}}}" if first else _NUMBER.sub(r"$\1$", escaped)
