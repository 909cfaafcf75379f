"""Output of commands: results on stdout, progress and remarks on stderr."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from bench.report.charts.chart import Chart


def stdout() -> Console:
    """Return the console for results; off a terminal it is wide enough for whole tables."""
    console = Console(soft_wrap=False, highlight=False)
    return console if console.is_terminal else Console(width=200, highlight=False)


def stderr() -> Console:
    """Return the console for progress and remarks."""
    return Console(stderr=True, highlight=False)


def remarks(*, quiet: bool) -> Callable[[str], None]:
    """Return a function that prints a line on stderr, or does nothing if *quiet*."""
    console = stderr()

    def say(text: str) -> None:
        if not quiet:
            console.print(text, markup=False, emoji=False, soft_wrap=True)

    return say


def save_tables_and_picture(
    tables: Mapping[str, pd.DataFrame],
    charts: Sequence[Chart],
    folder: Path,
    say: Callable[[str], None],
) -> None:
    """Write tables that have rows as CSV, and the charts, side by side, as SVG and PNG.

    The picture is named after the first table.

    Raises:
        StorageError: the folder cannot be written.
    """
    from bench.report.charts.draw_matplotlib import draw_row, save_figure
    from bench.store.files import write_atomically

    files = save_figure(draw_row(charts), folder, next(iter(tables)))
    for name, frame in tables.items():
        if len(frame):
            write_atomically(folder / f"{name}.csv", frame.to_csv(index=False).encode())
            files.append(folder / f"{name}.csv")
    say(f"wrote {', '.join(map(str, files))}")


def print_json(rows: Iterable[Mapping[str, Any]], errors: Iterable[Mapping[str, Any]] = ()) -> None:
    """Print the JSON document of a `--json` command."""
    document = {"schema": 1, "rows": list(rows), "errors": list(errors)}
    print(json.dumps(document, indent=1, default=str))  # noqa: T201 - the command's output


def simple_table(rows: list[dict[str, Any]], *, right: Iterable[str] = ()) -> Table:
    """Return rows as a table whose columns are the keys of the first row."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    aligned = set(right)
    for name in rows[0] if rows else ():
        table.add_column(name.replace("_", " "), justify="right" if name in aligned else "left")
    for row in rows:
        table.add_row(*("-" if value is None else escape(str(value)) for value in row.values()))
    return table
