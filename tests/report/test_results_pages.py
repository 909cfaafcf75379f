"""The published pages in `results/` say what the code makes of the data published beside them."""

from __future__ import annotations

import importlib.util
import itertools
import re
from pathlib import Path

import pytest

from bench.report.pages.study_report import StudyReport

ROOT = Path(__file__).parents[2]
PAGES = sorted(path.parent for path in ROOT.glob("results/*/epochs.csv"))
_SPEC = importlib.util.spec_from_file_location("republish", ROOT / "tools" / "republish.py")
assert _SPEC is not None
assert _SPEC.loader is not None
republish = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(republish)

_NUMBER = r"([+-]?\d+(?:\.\d+)?)"
_INTERVALS = re.compile(
    rf"{_NUMBER}(?: (?:behind|ahead))? to {_NUMBER}(?: (?:behind|ahead))?(?=[),;:]| and| points)"
)


@pytest.mark.parametrize("folder", PAGES, ids=lambda folder: folder.name)
def test_answer_and_tables_are_those_of_the_data(folder: Path) -> None:
    report = StudyReport(republish.read(folder))
    page = (folder / "README.md").read_text()
    found = report.statements
    expected = found if len(found) == 1 else [f"- {text}" for text in found]
    assert "\n".join(["", *expected, ""]) in page
    for table in (report.table, report.comparisons):
        for line in [*table.to_markdown(), table.note]:
            assert line in page
    for paragraph in report.study.paragraphs:
        assert paragraph in page


@pytest.mark.parametrize("folder", PAGES, ids=lambda folder: folder.name)
def test_a_discussion_quotes_the_intervals_of_its_page(folder: Path) -> None:
    data = republish.read(folder)
    compared = [*data.summaries, *data.contrasts]
    intervals = [d for c in compared for d in (c.difference, c.train_difference) if d]
    intervals += [e for s in data.summaries for e in (s.test_accuracy, s.train_accuracy) if e]
    known = {
        tuple(sorted(f"{abs(end) * 100:.{digits}f}" for end in (i.low, i.high)))
        for i, digits in itertools.product(intervals, (0, 1, 2))
        if i.low is not None and i.high is not None
    }
    text = " ".join(data.study.paragraphs)
    text = re.sub(r"\(95 % interval of that comparison alone: [^)]*\)", "", text)
    bare = re.findall(rf"\(((?:[+-]\d+\.\d+, )?{_NUMBER} to {_NUMBER})\)", text)
    for quoted in [
        *re.findall(r"95 % intervals? (?!of a proportion)([^()]*)", text),
        *(whole for whole, *_ in bare),
    ]:
        pairs = _INTERVALS.findall(f"{quoted})")
        assert pairs, quoted
        for pair in pairs:
            assert tuple(sorted(end.lstrip("+-") for end in pair)) in known, (pair, quoted)
