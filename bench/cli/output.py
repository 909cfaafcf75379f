"""Output of commands: results on stdout, progress and remarks on stderr."""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import os
import sys
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from bench.report.tables.terminal import TerminalTable

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from bench.report.charts.chart import Chart

_NO_LIMIT = 100_000  # columns
_stdout: int | None = None  # the file that --json prints on, while it is reserved
_ASCII = {
    "×": "x",
    "→": "->",
    "↔": "<->",
    "±": "+-",
    "\N{EN DASH}": "-",
    "\N{EM DASH}": "-",
    "·": "|",
    "█": "#",
    "‖": "||",
    "≤": "<=",
    "≥": ">=",
}


def replace_unencodable_output() -> None:
    """Let stdout and stderr write ASCII in place of what their encoding cannot represent.

    Terminals and redirections in cp1252, Latin-1 or ASCII would otherwise end a command with a
    traceback. Bytes of file names that are no text are written as they are.
    """
    codecs.register_error("bench-ascii", _replacement)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="bench-ascii")


def _replacement(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return what replaces the first character that cannot be encoded, and the place after it."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":  # a byte of a file name that is no text
        return character.encode("utf-8", "surrogateescape"), error.start + 1
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return _ASCII.get(character) or plain or "?", error.start + 1


def stdout() -> Console:
    """Return the console for results; off a terminal, lines are not broken."""
    console = Console(highlight=False, emoji=False)
    return (
        console if console.is_terminal else Console(width=_NO_LIMIT, highlight=False, emoji=False)
    )


def stderr() -> Console:
    """Return the console for progress and remarks."""
    return Console(stderr=True, highlight=False, emoji=False)


def remarks(*, quiet: bool) -> Callable[[str], None]:
    """Return a function that prints a line on stderr, or does nothing if *quiet*."""
    console = stderr()

    def say(text: str) -> None:
        if not quiet:
            console.print(text, markup=False, soft_wrap=True)

    return say


def prove_folder(folder: Path | None, option: str = "--output") -> None:
    """Make the folder that an option named, and prove that it can be written, before any work."""
    if folder is not None:
        from bench.store.files import prove_writable

        prove_writable(folder, option)


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


def print_json(
    rows: Iterable[Mapping[str, Any]],
    errors: Iterable[Mapping[str, Any]] = (),
    *,
    remarks: Sequence[str] | None = None,
) -> None:
    """Print the JSON document of a `--json` command; one that judges has *remarks*."""
    said = {} if remarks is None else {"remarks": remarks}
    print_document({"schema": 1, "rows": list(rows), "errors": list(errors), **said})


def print_document(document: Mapping[str, Any]) -> None:
    """Print a JSON document; numbers that are not finite, which JSON lacks, become null."""
    text = json.dumps(document, default=str)
    plain = json.loads(text, parse_constant=lambda _name: None)
    _release_stdout()
    print(json.dumps(plain, indent=1))  # noqa: T201 - the command's output


def reserve_stdout(wanted: bool) -> bool:
    """Let nothing but the document of `--json` be written to stdout; the rest goes to stderr.

    The user's datasets and networks may print, and native libraries, in worker processes, too.
    """
    global _stdout  # noqa: PLW0603 - one per process
    stream = sys.__stdout__
    if wanted and _stdout is None and stream is not None and stream is sys.stdout:
        with contextlib.suppress(OSError):  # one of the two is closed
            stream.flush()
            _stdout = os.dup(1)
            os.dup2(2, 1)
    return wanted


def _release_stdout() -> None:
    global _stdout  # noqa: PLW0603
    if _stdout is not None:
        sys.stdout.flush()  # what was printed before
        os.dup2(_stdout, 1)
        os.close(_stdout)
        _stdout = None


def print_table(
    rows: Sequence[Mapping[str, Any]],
    forms: Mapping[str, str] = {},
    *,
    prose: Collection[str] = (),
    needed: int = 1,
) -> None:
    """Print rows as a table whose columns are the keys of the first row, important ones first.

    Args:
        rows: column → value; a missing value is shown as "-".
        forms: column → format of its values, such as ".2f"; these columns are aligned on the right.
        prose: columns of text, which a narrow terminal may wrap.
        needed: number of columns that a narrow terminal may not leave out.
    """
    names = tuple(rows[0]) if rows else ()
    cells = [
        ["-" if row[name] is None else format(row[name], forms.get(name, "")) for name in names]
        for row in rows
    ]
    left = [_heading(name) for name in names if name not in forms]
    columns = [_heading(name) for name in names]
    stdout().print(TerminalTable(columns, cells, left, [_heading(n) for n in prose], needed))


def _heading(name: str) -> str:
    return name.replace("_", " ")


def network_names(rows: Iterable[Mapping[str, Any]], results: Path) -> list[str]:
    """Return names for people of rows with `run` and `model`: a run's begins with its variant."""
    from bench.store import Store
    from bench.store.runs import short_name

    variants = Store(results).variants_of_runs()
    return [
        short_name(run, variants.get(run, row["model"])) if (run := row["run"]) else row["model"]
        for row in rows
    ]


def scaled(value: float | None, factor: float) -> float | None:
    """Return a value in another unit, None for a missing one."""
    return None if value is None else value * factor


def print_text(text: str, *, style: str | None = None) -> None:
    """Print sentences, wrapped at words on a terminal; no part of them is read as markup."""
    stdout().print(text, style=style, markup=False)


def print_line(text: object, *, style: str | None = None) -> None:
    """Print one line of results without wrapping it; no part of it is read as markup."""
    stdout().print(str(text), style=style, markup=False, soft_wrap=True)
