"""The published pages in `results/` say what the code makes of the data published beside them."""

from __future__ import annotations

import importlib.util
import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from bench.report.pages.study_report import StudyReport

if TYPE_CHECKING:
    from bench.report.study_data import StudyData

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


_QUOTED = re.compile(r"(?<![\w.,:/-])[+-]?\d+(?:,\d{3})*(?:\.\d+)?(?!\w|\.\d|:\d)")
_YEAR = re.compile(r"(?:et al\.|November) 20\d\d|section \d\.\d|commit \w+")

# Numbers that no file of the page has, and where they come from instead.
ELSEWHERE = {
    "activation-order": {"210": "steps: 3 epochs of 9,000 images in batches of 128"},
    "book": dict.fromkeys(["7.2", "7.0", "7.3", "20"], "the benchmark that the text names")
    | dict.fromkeys(["108000", "600000"], "epochs times images"),
    "bottleneck": dict.fromkeys(["9.9", "5.6", "14.3", "2.4"], "the page as first published")
    | dict.fromkeys(["280", "840"], "steps: 9,000 images in batches of 32")
    | {"600000": "steps in the paper"},
    "capacity": {"450": "nine tenths of 500 images"},
    "degradation": {"420": "steps: 3 epochs of 18,000 images in batches of 128"}
    | {"18000": "nine tenths of 20,000 images"}
    | dict.fromkeys(["23"], "a count of rows of lesions.csv"),
    "deployment": {"420": "steps: 3 epochs of 18,000 images in batches of 128"}
    | {"18000": "nine tenths of 20,000 images"},
    "depth": dict.fromkeys(["4.9", "14.8", "28.5", "40.6"], "the page as first published")
    | {"840": "steps: 3 epochs of 9,000 images in batches of 32"}
    | dict.fromkeys(["600000", "256"], "steps and batch in the papers")
    | dict.fromkeys(["6.6", "5.2"], "ratios of multiply-adds and parameters"),
    "fast-recipe": dict.fromkeys(["256", "261"], "seconds of training to 92 %, median over seeds"),
    "grow": {"1000": "validation images"} | {"12": "a drop: 88.4 to 76.7 %"},
    "identity": {"350": "steps: 5 epochs of 9,000 images in batches of 128"}
    | dict.fromkeys(
        ["0.04", "0.17", "0.20", "0.13", "0.39", "0.38", "1.51", "0.64"],
        "means over seeds of rows of gradients.csv",
    ),
    "shortcut": {"422": "steps: 54,000 images in batches of 128", "5": "a ratio of images/s"}
    | {"600000": "steps in the paper", "1.04": "a ratio of multiply-adds"},
    "shortcut-kinds": {"210": "steps: 3 epochs of 9,000 images in batches of 128"}
    | {"27": "blocks of ResNet-56"},
    "table-1": {"5400": "nine tenths of 6,000 images", "10": "chance, and an end of an interval"},
    "table-1-longer": {"5400": "nine tenths of 6,000 images"},
    "time-budget": dict.fromkeys(["18", "42", "19", "35"], "minutes and seconds of the runs")
    | dict.fromkeys(["95.58", "95.00"], "test_accuracy_with_flip, which runs.csv does not have"),
}


def _numbers(folder: Path, data: StudyData) -> set[str]:
    """Return what a page and the data beside it say, without sign, as text."""
    values: list[float] = []
    for path in folder.glob("*.csv"):
        table = pd.read_csv(path).select_dtypes("number")
        values += table.to_numpy().ravel().tolist()
    keys = [["variant", "epoch"], ["variant"]]
    for table, by in zip((data.epochs, data.runs), keys, strict=True):
        means = table.groupby(by).mean(numeric_only=True)
        values += means.to_numpy().ravel().tolist()
    for compared in [*data.summaries, *data.contrasts]:
        for found in (compared.difference, compared.train_difference):
            if found is not None:
                # Alone, a p-value is not multiplied by the number of comparisons.
                alone = (found.p_value or 0) * found.level / 0.05
                values += [found.mean, found.low or 0, found.high or 0, found.detectable or 0]
                values += [alone]
    known = {
        f"{abs(value) * scale:.{digits}f}"
        for value in values
        if pd.notna(value)
        for scale, digits in ((1, 0), (1, 1), (1, 2), (1, 3), (100, 0), (100, 1), (100, 2))
    }
    page = (folder / "README.md").read_text()
    before, _, after = page.partition("\n## Discussion\n")
    rest = before + after[after.find("\n## ") :]
    printed = {number.replace(",", "") for number in re.findall(r"\d+(?:,\d{3})*(?:\.\d+)?", rest)}
    rounded = {f"{float(number):.1f}" for number in printed}
    return known | printed | rounded


@pytest.mark.parametrize("folder", PAGES, ids=lambda folder: folder.name)
def test_a_discussion_quotes_numbers_of_its_page_or_says_whose_they_are(folder: Path) -> None:
    data = republish.read(folder)
    text = _YEAR.sub("", " ".join(data.study.paragraphs))
    quoted = {number.lstrip("+-").replace(",", "") for number in _QUOTED.findall(text)}
    strange = quoted - _numbers(folder, data)
    elsewhere = ELSEWHERE.get(folder.name, {})
    assert strange <= elsewhere.keys()
    assert elsewhere.keys() <= quoted, "an entry that no discussion needs"
