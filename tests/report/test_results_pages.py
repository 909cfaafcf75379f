"""The published pages in `results/` say what the code makes of the data published beside them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from bench.report.findings.answer import statements, summarise
from bench.report.tables.study import study_table
from bench.store import RunRecord, StudyRecord
from bench.studies import load_study

PAGES = sorted(path.parent for path in Path(__file__).parents[2].glob("results/*/epochs.csv"))
FIGURES = ("test_accuracy", "train_accuracy", "parameters", "macs", "images_per_second")


def read(folder: Path) -> tuple[StudyRecord, dict[str, RunRecord]]:
    """Read a published study back as far as its `runs.csv` and its file have it."""
    file = load_study(folder.name)
    frame = pd.read_csv(folder / "runs.csv")
    variants = {}
    for variant in file.expand().variants:
        rows = frame[frame["variant"] == variant.name]
        runs = {str(s): run for s, run in zip(rows["seed"], rows["run"], strict=True)}
        variants[variant.name] = {"reference": variant.reference, "runs": runs}
    records = {
        row["run"]: RunRecord(
            row["run"],
            {},
            row["status"],
            {},
            row["started_at"],
            row["seconds"],
            result={**{name: row[name] for name in FIGURES}, "classes": [None] * 10},
        )
        for row in frame.to_dict("records")
    }
    compared = file.study.compare_training
    return StudyRecord(folder.name, "", variants, compare_training=compared), records


@pytest.mark.parametrize("folder", PAGES, ids=lambda folder: folder.name)
def test_answer_and_table_are_those_of_the_data(folder: Path) -> None:
    summaries = summarise(*read(folder))
    page = (folder / "README.md").read_text()
    found = statements(summaries)
    expected = found if len(found) == 1 else [f"- {text}" for text in found]
    assert "\n".join(["", *expected, ""]) in page
    for line in study_table(summaries).to_markdown():
        assert line in page
