"""A study's folder for readers: table, picture, data, and how it was made."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from bench.errors import BenchError, nearest
from bench.report.answer import answer, outlook, summarise
from bench.report.frames import study_runs
from bench.report.latex import latex_table
from bench.report.plots import draw_row, save_figure
from bench.report.tables import study_cells
from bench.store.files import telling, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pandas as pd

    from bench.report.answer import VariantSummary
    from bench.store import Store, StudyRecord

TABLES = ("runs", "epochs", "exports", "throughput")
DETAILED_ROWS = 200  # a GitHub summary takes 1 MiB
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
    """Refuse formats that are unknown or cannot be written here.

    Raises:
        BenchError: naming the format, and what is known or missing.
    """
    for name in formats:
        if name not in FORMATS:
            raise BenchError(
                f"--format {name or '(empty)'}: unknown format{nearest(name, FORMATS)} "
                f"(known: {', '.join(FORMATS)})"
            )
    if not formats:
        raise BenchError(f"--format names no format (known: {', '.join(FORMATS)})")
    if "html" in formats and importlib.util.find_spec("bench.report.page") is None:
        raise BenchError("--format html: this version of bench has no page; take markdown")


def require_finished(store: Store, study: StudyRecord) -> pd.DataFrame:
    """Return the study's runs.

    Raises:
        BenchError: none of them is finished.
    """
    runs = study_runs(store, study.name)
    if not (runs["status"] == "complete").any():
        raise BenchError(f"study '{study.name}' has no finished run yet; there is nothing to show")
    return runs


def _write_markdown(store: Store, study: StudyRecord, folder: Path) -> list[Path]:
    from bench.report.page.sections import overview

    pictures = save_figure(draw_row(overview(store, study.name)), folder, "study")
    page = folder / "README.md"
    text = markdown(store, study, study_runs(store, study.name))
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
    write_page = importlib.import_module("bench.report.page").write_page
    path = folder / "report.html"
    with telling(folder):
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


def markdown(store: Store, study: StudyRecord, runs: pd.DataFrame, *, picture: bool = True) -> str:
    """Return a study's page in Markdown: question, answer, table, and how it was made.

    Args:
        store: the results folder.
        study: the study.
        runs: its rows of the `runs` table.
        picture: refer to `study.svg`; without, the page stands alone, as a CI summary must.
    """
    summaries = summarise(store, study)
    lines = [f"# {study.question}", ""]
    if study.source:
        lines += [f"After {study.source}.", ""]
    lines += [" ".join([answer(summaries), *outlook(summaries)]), ""]
    lines += [*markdown_table(study_cells(summaries)), ""]
    if picture:
        lines += ["![Training, test accuracy by seed, and differences](study.svg)", ""]
    lines += _failures(runs)
    lines += [
        "Accuracies are means over seeds ± the half-width of their 95 % t-interval; differences",
        f"are paired by seed, in points, with the 95 % interval of {methods(summaries)}; p-values",
        "are Holm-corrected. Images/s is training, median over seeds.",
        "",
        *_every_run(runs),
        "## How it was made",
        "",
    ]
    lines += [f"- {line}" for line in provenance(store, study, runs)]
    return "\n".join(lines) + "\n"


def methods(summaries: list[VariantSummary]) -> str:
    """Name the tests behind the intervals of differences."""
    names = {
        "t": "the paired t-test",
        "bootstrap": "the BCa bootstrap (p-values of the sign-flip permutation test)",
    }
    used = {s.difference.method for s in summaries if s.difference}
    return " or ".join(words for name, words in names.items() if name in (used or {"t"}))


def _failures(runs: pd.DataFrame) -> list[str]:
    """Lines that name every run that is not complete, with its reason."""
    failed = runs[runs["status"] != "complete"]
    if failed.empty:
        return []
    lines = [f"**{len(failed)} of {len(runs)} runs are not complete:**", ""]
    for row in failed.head(DETAILED_ROWS).to_dict("records"):
        reason = " ".join(str(row["error"]).split())
        lines.append(f"- {row['variant']} seed {row['seed']}: {row['status']}: `{reason}`")
    return [*lines, ""]


def _every_run(runs: pd.DataFrame) -> list[str]:
    """One collapsed table with a row a run."""
    columns = ["variant", "seed", "status", "test_accuracy", "train_accuracy", "seconds", "run"]
    shown = runs[columns].head(DETAILED_ROWS)
    cells = [
        ["-" if _is_missing(v) else f"{v:.4g}" if isinstance(v, float) else str(v) for v in row]
        for row in shown.itertuples(index=False)
    ]
    left = len(runs) - len(shown)
    return [
        "<details>",
        f"<summary>Every run ({len(runs)})</summary>",
        "",
        *markdown_table([columns, *cells]),
        *([f"\n… and {left} more, in the CSV."] if left else []),
        "",
        "</details>",
        "",
    ]


def _is_missing(value: object) -> bool:
    """Whether one cell holds nothing."""
    import pandas as pd

    return bool(pd.isna(value))  # type: ignore[call-overload]


def provenance(store: Store, study: StudyRecord, runs: pd.DataFrame) -> list[str]:
    """Return what a reader needs to check the figures: command, data, machine, commit, date."""
    records = [store.read_run(run) for run in runs["run"].unique()]
    known = [record for record in records if record is not None]
    first = known[0].environment
    commits = sorted({str(r.environment["git_commit"]) for r in known})
    dirty = any(r.environment["git_dirty"] for r in known)
    seeds = ", ".join(str(s) for s in sorted(runs["seed"].unique()))
    return [
        f"command: `bench run-ablation {study.name}`",
        f"data: {', '.join(sorted(set(runs['dataset'])))}; random seeds {seeds}",
        (
            f"machine: {first['cpu']} ({' '.join(first['instruction_sets'])}), device "
            f"{first['device']}, {first['threads']} thread(s) a run"
        ),
        f"versions: bench {first['bench']}, torch {first['torch']}, Python {first['python']}",
        f"commit: {', '.join(commits)}{' with uncommitted changes' if dirty else ''}",
        (
            f"started: {runs['started_at'].min():%Y-%m-%d %H:%M} UTC; training time of all runs "
            f"together {runs['seconds'].sum():.0f} s"
        ),
    ]


def markdown_table(rows: list[list[str]]) -> list[str]:
    """Return rows, the first of them headings, as lines of a Markdown table."""
    shown = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    rule = ["---", *["---:"] * (len(rows[0]) - 1)]
    return ["| " + " | ".join(row) + " |" for row in (shown[0], rule, *shown[1:])]
