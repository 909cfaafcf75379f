"""The published pages in `results/` say what the code makes of the data published beside them."""

from __future__ import annotations

from pathlib import Path

import pytest
import republish

from bench.report.pages.study_report import StudyReport
from bench.report.tables.study import TUNED, TUNED_BEFORE
from bench.studies import load_study

ROOT = Path(__file__).parents[2]
PAGES = sorted(path.parent for path in ROOT.glob("results/*/epochs.csv"))


@pytest.mark.parametrize("folder", PAGES, ids=lambda folder: folder.name)
def test_answer_and_tables_are_those_of_the_data(folder: Path) -> None:
    report = StudyReport(republish.read(folder))
    page = (folder / "README.md").read_text()
    found = report.statements
    expected = found if len(found) == 1 else [f"- {text}" for text in found]
    assert "\n".join(["", *expected, ""]) in page
    for table in (report.table, report.comparisons, report.spreads):
        if table.rows:
            for line in [*table.to_markdown(), table.note]:
                assert line in page
    if tune := load_study(folder.name).study.tune:
        now = TUNED.format(seeds=", ".join(map(str, tune.seeds)))
        assert any(note in page for note in (now, TUNED_BEFORE))
    for text in (*report.study.paragraphs, *report.data.agreement.sentences):
        assert text in page
