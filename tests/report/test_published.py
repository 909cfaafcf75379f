"""The paper's figures stand beside a study's, and a study file cannot name a wrong variant."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from bench import run_study
from bench.errors import BenchError
from bench.report.pages.html import html
from bench.report.pages.markdown import markdown
from bench.report.pages.study_report import StudyReport, read_study_report
from bench.report.study_data import StudyData
from bench.report.tables.study import published_table
from bench.store import Store
from bench.studies import load_study, shipped_studies

if TYPE_CHECKING:
    from pathlib import Path

STUDY = """question = "Whose?"
discussion = "Ten steps\\nsay <i>little</i>.\\n\\nMore would say more."
reference = "one"
[base]
dataset = "fashion-mnist-mini"
model = "resnet8"
options = { width = 2 }
train_images = 100
epochs = 1
seeds = [0, 1]
[[variant]]
name = "one"
[[variant]]
name = "other"
learning_rate = 0.01
[[variant]]
name = "unknown to the paper"
learning_rate = 0.02
[published]
setting = "Another dataset, <b>long</b> training."
differs = "Nearly everything."
top1_error = { other = 8.17, one = 6.61 }
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("published")
    (folder / "whose.toml").write_text(STUDY)
    run_study(folder / "whose.toml", results=folder / "runs", device="cpu", workers=1)
    return Store(folder / "runs")


def test_a_row_has_both_errors_and_both_differences_with_a_better_one_positive(
    store: Store,
) -> None:
    data = read_study_report(store, "whose").data
    summaries = data.summaries
    one, other = published_table(data.study, summaries).rows
    ours = {s.name: s for s in summaries}
    found = ours["other"].difference
    assert found is not None
    assert one[:3] == ("one", "6.61", "reference")
    assert one[4] == "reference"
    assert other[:3] == ("other", "8.17", "-1.56")
    assert other[4].startswith(f"{found.mean * 100:+.2f} [")
    for row in (one, other):
        accuracy = ours[row[0]].test_accuracy
        assert accuracy is not None
        assert float(row[3]) == pytest.approx(100 - 100 * accuracy.mean, abs=0.005)


def test_markdown_and_page_show_it_with_what_differs(store: Store) -> None:
    report = read_study_report(store, "whose")
    text = markdown(report)
    assert "## What the paper found" in text
    assert "Here: Nearly everything." in text
    assert "| other | 8.17 | -1.56 |" in text
    page = html(report)
    assert "What the paper found" in page
    assert "&lt;b&gt;long&lt;/b&gt;" in page


def test_markdown_and_page_show_what_the_author_makes_of_it(store: Store) -> None:
    report = read_study_report(store, "whose")
    told = "## Discussion\n\nTen steps say <i>little</i>.\n\nMore would say more.\n\n"
    assert told in markdown(report)
    page = html(report)
    assert "<p>Ten steps say &lt;i&gt;little&lt;/i&gt;.</p>\n<p>More would say more.</p>" in page
    silent = dataclasses.replace(report.study, discussion=None)
    assert "Discussion" not in markdown(StudyReport(StudyData(store, silent)))


def test_without_figures_there_is_no_such_part(store: Store) -> None:
    study = store.find_study("whose")
    without = dataclasses.replace(study, published=None)
    report = StudyReport(StudyData(store, without))
    assert not report.published
    assert "What the paper found" not in markdown(report)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "other = 8.17",
            "othr = 8.17",
            "mine.toml:22: published.top1_error: variant othr is unknown; did you mean 'other'",
        ),
        ("other = 8.17", "other = 817", "mine.toml:22: published.top1_error.other"),
        ('differs = "Nearly everything."\n', "", "differs"),
    ],
)
def test_figures_of_no_variant_or_no_error_are_refused(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(STUDY.replace(old, new))
    with pytest.raises(BenchError, match=expected.replace(".", r"\.")):
        load_study(path)


def test_the_shipped_studies_quote_the_papers_tables() -> None:
    """He et al. 2016a, Tables 2, 3 and 6; 2016b, Tables 1 and 2."""
    quoted = {
        name: found.study.published.top1_error
        for name in shipped_studies()
        if (found := load_study(name)).study.published is not None
    }
    assert quoted["degradation"]["resnet56"] == 6.97
    assert quoted["depth"]["resnet152"] == 21.43
    assert quoted["bottleneck"]["resnet34-basic"] == quoted["depth"]["resnet34"] == 24.52
    assert quoted["shortcut"] == {"resnet18": 27.88, "plain18": 27.94}
    assert quoted["quickstart"] == {"resnet34": 25.03, "plain34": 28.54}
    assert quoted["activation-order"]["56-preact"] == 6.37
    assert quoted["shortcut-kinds"]["all_projection"] == 12.22
