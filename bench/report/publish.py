"""A study's folder for readers: table, picture, data, and how it was made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.errors import BenchError
from bench.report.answer import answer, summarise
from bench.report.frames import study_runs
from bench.report.plots import draw_study, save_figure
from bench.report.tables import study_cells
from bench.store.files import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from bench.store import Store, StudyRecord


def publish(store: Store, study: StudyRecord, folder: Path) -> list[Path]:
    """Write a study's page, picture and data into *folder*; returns the files.

    Raises:
        BenchError: no run of the study is finished.
        StorageError: the folder cannot be written.
    """
    runs = study_runs(store, study.name)
    if not (runs["status"] == "complete").any():
        raise BenchError(f"study '{study.name}' has no finished run yet; there is nothing to show")
    pictures = save_figure(draw_study(store, study.name, summarise(store, study)), folder, "study")
    page = folder / "README.md"
    write_atomically(page, markdown(store, study, runs).encode())
    tables = []
    for name in ("runs", "epochs"):
        path = folder / f"{name}.csv"
        content = study_runs(store, study.name, name).to_csv(index=False)
        write_atomically(path, content.encode())
        tables.append(path)
    return [page, *pictures, *tables]


def markdown(store: Store, study: StudyRecord, runs: pd.DataFrame) -> str:
    """Return a study's page in Markdown: question, answer, table, and how it was made."""
    summaries = summarise(store, study)
    lines = [f"# {study.question}", ""]
    if study.source:
        lines += [f"After {study.source}.", ""]
    lines += [answer(summaries), "", *markdown_table(study_cells(summaries)), ""]
    lines += ["![Training, test accuracy by seed, and differences](study.svg)", ""]
    lines += [
        "Accuracies are means over seeds ± the half-width of their 95 % t-interval; differences",
        "are paired by seed, in points, with the 95 % interval of the paired t-test; p-values are",
        "Holm-corrected. Images/s is training, median over seeds.",
        "",
        "## How it was made",
        "",
    ]
    lines += [f"- {line}" for line in provenance(store, study, runs)]
    return "\n".join(lines) + "\n"


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
