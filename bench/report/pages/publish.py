"""The files of `bench report`: a page with pictures, data, a table for a paper."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, cast

from bench.errors import BenchError, check_known
from bench.report.charts.draw_matplotlib import draw_row, save_charts, save_figure
from bench.report.pages.html import html
from bench.report.pages.json_document import json_document
from bench.report.pages.markdown import markdown
from bench.store.files import prove_writable, write_atomically
from bench.store.tables.columns import COLUMNS, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bench.report.pages.study_report import StudyReport

FORMATS = ("csv", "parquet", "markdown", "latex", "html", "json")


def publish(
    report: StudyReport,
    folder: Path,
    formats: Sequence[str] = ("markdown", "csv"),
    columns: Sequence[str] = (),
) -> list[Path]:
    """Write a study's report into *folder*; returns the files.

    Args:
        report: the report.
        folder: where to write; made if it is not there.
        formats: of `FORMATS`. `markdown` is a page with its pictures, `csv` and `parquet` are
            the study's tables that have a row, `latex` a booktabs table, `html` one page, `json`
            the result as one document.
        columns: of the LaTeX table, besides the variants (default: all).

    Raises:
        BenchError: a format or column is unknown, or no run of the study is finished.
        StorageError: the folder cannot be written.
    """
    check_formats(formats)
    require_finished(report)
    if columns:
        report.table.chosen(columns)  # refuses before anything is written
    prove_writable(folder, "--output")
    write: dict[str, Callable[[], list[Path]]] = {
        "csv": lambda: _write_tables(report, folder, "csv"),
        "parquet": lambda: _write_tables(report, folder, "parquet"),
        "markdown": lambda: _write_markdown(report, folder),
        "latex": lambda: write_file(folder / "table.tex", latex(report, columns)),
        "html": lambda: write_file(folder / "report.html", html(report)),
        "json": lambda: write_file(folder / "report.json", json_text(report)),
    }
    return [path for name in dict.fromkeys(formats) for path in write[name]()]


def check_formats(formats: Sequence[str]) -> None:
    """Raise a `BenchError` that names an unknown format, and those that are known."""
    for name in formats:
        check_known("--format", name, FORMATS)


def require_finished(report: StudyReport) -> None:
    """Raise a `BenchError` if no run of the study is complete, with what became of its runs."""
    if report.progress[0]:
        return
    name, store = report.study.name, report.data.store
    for run in report.data.places:
        if run not in report.data.records and store.folder(run).is_dir():
            why = store.why_absent(run)
            raise BenchError(f"study '{name}': no run can be read ({run}: {why})")
    tried = f" ({report.incomplete})" if report.incomplete else ""
    raise BenchError(f"study '{name}' has no finished run yet{tried}; there is nothing to show")


def latex(report: StudyReport, columns: Sequence[str]) -> str:
    """Return a study's table as LaTeX, with the answer as its caption.

    Args:
        report: the report.
        columns: names of the columns, besides the variants; all if there is no name.

    Raises:
        BenchError: a column is not there.
    """
    table = report.table.chosen(columns) if columns else report.table
    name = re.sub(r"[^A-Za-z0-9]+", "-", report.study.name).strip("-")
    return table.to_latex(caption=report.answer, label=f"tab:{name}")


def _write_markdown(report: StudyReport, folder: Path) -> list[Path]:
    pictures = save_figure(draw_row(report.overview), folder, "study")
    charts = [chart for section in report.further for chart in section.charts]
    pictures += save_charts(charts, folder)
    return [*write_file(folder / "README.md", markdown(report, pictures=True)), *pictures]


def _write_tables(report: StudyReport, folder: Path, kind: str) -> list[Path]:
    """Write every table that has a row, and always `runs` and `epochs`."""
    written = []
    for name in COLUMNS:
        frame = report.data.table(cast("Table", name))
        if len(frame) or name in {"runs", "epochs"}:
            content = frame.to_csv(index=False) if kind == "csv" else frame.to_parquet(index=False)
            written += write_file(folder / f"{name}.{kind}", content)
    return written


def json_text(report: StudyReport) -> str:
    """Return `json_document` as text."""
    return json.dumps(json_document(report), indent=1) + "\n"  # ASCII, whatever stdout takes


def write_file(path: Path, content: str | bytes) -> list[Path]:
    """Write a file whole or not at all; return it in a list, to be added to others."""
    write_atomically(path, content.encode() if isinstance(content, str) else content)
    return [path]
