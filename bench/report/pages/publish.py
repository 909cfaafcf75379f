"""A study's folder for readers: table, picture, data, and how it was made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.errors import BenchError, nearest
from bench.report.charts.draw_matplotlib import draw_row, save_charts, save_figure
from bench.report.findings.answer import answer, summarise
from bench.report.pages.markdown import Pictured, markdown
from bench.report.tables.latex import latex_table
from bench.report.tables.study import study_cells
from bench.store.files import storage_errors, write_atomically
from bench.store.tables.columns import COLUMNS
from bench.store.tables.frames import study_runs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pandas as pd

    from bench.store import Store, StudyRecord

TABLES = tuple(COLUMNS)
DEFAULT_FORMATS = ("markdown", "csv")


def publish(
    store: Store,
    study: StudyRecord,
    folder: Path,
    formats: Sequence[str] = DEFAULT_FORMATS,
) -> list[Path]:
    """Write a study's report into *folder*; returns the files.

    Args:
        store: the results folder.
        study: the study.
        folder: where to write; made if it is not there.
        formats: of `FORMATS`. `markdown` is a page with its picture, `csv` and `parquet` are
            the study's tables that have a row, `latex` a booktabs table, `html` one page.

    Raises:
        BenchError: a format is unknown, or no run of the study is finished.
        StorageError: the folder cannot be written.
    """
    check_formats(formats)
    require_finished(store, study)
    written: list[Path] = []
    for name in dict.fromkeys(formats):
        written += FORMATS[name](store, study, folder)
    return written


def check_formats(formats: Sequence[str]) -> None:
    """Refuse formats that are unknown.

    Raises:
        BenchError: naming the format, and what is known.
    """
    for name in formats:
        if name not in FORMATS:
            raise BenchError(
                f"--format {name or '(empty)'}: unknown format{nearest(name, FORMATS)} "
                f"(known: {', '.join(FORMATS)})"
            )
    if not formats:
        raise BenchError(f"--format names no format (known: {', '.join(FORMATS)})")


def require_finished(store: Store, study: StudyRecord) -> pd.DataFrame:
    """Return the study's runs.

    Raises:
        BenchError: none of them is finished.
    """
    runs = study_runs(store, study.name)
    if not (runs["status"] == "complete").any():
        raise BenchError(_nothing_finished(store, study, runs))
    return runs


def _nothing_finished(store: Store, study: StudyRecord, runs: pd.DataFrame) -> str:
    wanted = [run for entry in study.variants.values() for run in entry["runs"].values()]
    broken = [r for r in wanted if r not in set(runs["run"]) and store.folder(r).is_dir()]
    if broken:
        why = f"{broken[0]}: {store.why_absent(broken[0])}"
        return f"study '{study.name}': no run can be read ({why})"
    counts = runs["status"].astype(str).value_counts().items()
    tried = ", ".join(f"{n} {str(status).replace('_', ' ')}" for status, n in counts)
    said = f" ({tried})" if tried else ""
    return f"study '{study.name}' has no finished run yet{said}; there is nothing to show"


def _write_markdown(store: Store, study: StudyRecord, folder: Path) -> list[Path]:
    from bench.report.pages.provenance import further_commands
    from bench.report.pages.sections import further, overview
    from bench.report.study_data import gather

    material = gather(store, study.name)
    sections = further(material)
    pictures = save_figure(draw_row(overview(material)), folder, "study")
    pictures += save_charts([c for section in sections for c in section.charts], folder)
    page = folder / "README.md"
    pictured = Pictured(sections, further_commands(material))
    text = markdown(store, study, material.runs, pictured)
    write_atomically(page, text.encode())
    return [page, *pictures]


def _write_csv(store: Store, study: StudyRecord, folder: Path) -> list[Path]:
    written = []
    for name, frame in _filled_tables(store, study).items():
        path = folder / f"{name}.csv"
        write_atomically(path, frame.to_csv(index=False).encode())
        written.append(path)
    return written


def _write_parquet(store: Store, study: StudyRecord, folder: Path) -> list[Path]:
    written = []
    for name, frame in _filled_tables(store, study).items():
        path = folder / f"{name}.parquet"
        write_atomically(path, frame.to_parquet(index=False))
        written.append(path)
    return written


def _write_latex(store: Store, study: StudyRecord, folder: Path) -> list[Path]:
    path = folder / "table.tex"
    summaries = summarise(store, study)
    write_atomically(path, latex_table(study_cells(summaries), answer(summaries)).encode())
    return [path]


def _write_html(store: Store, study: StudyRecord, folder: Path) -> list[Path]:
    from bench.report.pages import write_page  # jinja2, and a megabyte of script

    path = folder / "report.html"
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_page(store, study.name, path)
    return [path]


FORMATS: dict[str, Callable[[Store, StudyRecord, Path], list[Path]]] = {
    "csv": _write_csv,
    "parquet": _write_parquet,
    "markdown": _write_markdown,
    "latex": _write_latex,
    "html": _write_html,
}


def _filled_tables(store: Store, study: StudyRecord) -> dict[str, pd.DataFrame]:
    frames = {name: study_runs(store, study.name, name) for name in TABLES}  # type: ignore[arg-type]
    return {name: f for name, f in frames.items() if len(f) or name in {"runs", "epochs"}}
