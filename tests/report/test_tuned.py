"""What a study tuned stands beside its results, wherever they are shown."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console
from scipy.stats import binom

from bench import Report, run_study
from bench.report.pages.html import html
from bench.report.pages.markdown import markdown
from bench.report.pages.study_report import read_study_report
from bench.report.pages.terminal import print_report
from bench.report.tables.study import tuned_table
from bench.store import Store, StudyRecord

STUDY = """question = "Which rate?"
[base]
dataset = "fashion-mnist-mini"
model = "resnet8"
options = { width = 2 }
input_size = 8
train_images = 500
batch_size = 32
epochs = 2
seeds = [0]
[tune]
learning_rate = [0.1, 0.0001]
[[variant]]
name = "one"
[[variant]]
name = "<i>other</i>"
weight_decay = 0.0
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("tuned")
    (folder / "rates.toml").write_text(STUDY)
    run_study(folder / "rates.toml", results=folder / "runs", device="cpu", workers=1)
    return Store(folder / "runs")


def test_every_value_has_the_validation_accuracy_of_its_own_run(store: Store) -> None:
    study = store.find_study("rates")
    table = tuned_table(study)
    assert table.columns == ("variant", "0.0001", "0.1", "learning rate taken")
    for (name, *scores, taken), tried in zip(table.rows, study.tuning.values(), strict=True):
        tries = []
        for value, score in zip(("0.0001", "0.1"), scores, strict=True):
            records = [store.read_run(tried["runs"][f"{value} seed {s}"]) for s in (1000, 1001)]
            found = [r.result["validation_accuracy"] for r in records if r is not None]
            share = records[0].result["validation_largest_class"]  # of 50 images
            learned = [
                accuracy for accuracy in found if 50 * accuracy > binom.ppf(0.975, 50, share)
            ]
            mean = sum(learned or found) / len(learned or found)
            error = tried["standard_errors"][value]
            if len(learned) != 1:
                assert error >= abs(found[0] - found[1]) / 2 - 1e-9
            some = "" if len(learned) == 2 else f" ({len(learned)} of 2 learned)"
            assert score == f"{mean * 100:.2f} ± {error * 100:.2f}{some}"
            tries.append((len(learned), mean, error))
        (few, low, _), (many, high, error) = tries
        smaller = few > many or (few == many and low >= high - error)
        assert taken == ("0.0001, the smallest tried" if smaller else "0.1, the largest tried")
        runs = [store.read_run(run) for run in study.variants[name]["runs"].values()]
        rates = {r.request["recipe"]["learning_rate"] for r in runs if r is not None}
        assert rates == {float(taken.split(",")[0])}
    assert "of the seeds 1000, 1001, which are not evaluated" in table.note


def test_all_reports_show_it(store: Store) -> None:
    study = store.find_study("rates")
    report = read_study_report(store, "rates")
    written = markdown(report)
    assert "## What was tuned\n\n| variant | 0.0001 | 0.1 | learning rate taken |\n" in written
    for row in report.tuned.rows:
        shown = [cell.replace("<", "\\<") for cell in row]
        assert f"| {' | '.join(shown)} |" in written
    own = {run for v in study.variants.values() for run in v["runs"].values()}
    others = [store.read_run(run) for run in study.runs - own]
    seconds = sum(record.seconds for record in others if record is not None)
    assert len(others) == 8  # two variants, two values, two seeds
    assert f" s, of 8 more that only tuned {seconds:.0f} s\n" in written
    page = html(report)
    assert '<h3 id="tuned">What was tuned</h3>' in page
    assert "&lt;i&gt;other&lt;/i&gt;" in page
    assert "<i>other</i>" not in page.split('id="tuned"')[1].split("<script")[0]
    shown = Report(store.root, "rates")._repr_html_()
    for cell in (cell for row in report.tuned.rows for cell in row):
        assert f">{cell.replace('<', '&lt;').replace('>', '&gt;')}</t" in shown
    console = Console(width=200, record=True, file=io.StringIO())
    print_report(report, console)
    printed = console.export_text()
    for row in report.tuned.rows:
        assert re.search(r"\s+".join(map(re.escape, row)), printed)


def tried(chosen: float | None, **values: float | None) -> StudyRecord:
    of_one = {"setting": "learning_rate", "values": values, "chosen": chosen, "runs": {}}
    return StudyRecord("rates", "Which?", {}, tuning={"one": of_one})


@pytest.mark.parametrize(
    ("study", "row"),
    [
        (tried(0.1, **{"0.1": 0.5, "0.2": None, "0.02": 0.4}), ["40.00", "50.00", "-", "0.1"]),
        (tried(0.2, **{"0.1": 0.5, "0.2": 0.6}), ["50.00", "60.00", "0.2, the largest tried"]),
        (tried(0.1, **{"0.1": 0.6, "0.2": 0.5}), ["60.00", "50.00", "0.1, the smallest tried"]),
        (tried(0.1, **{"0.1": 0.5}), ["50.00", "0.1"]),
        (tried(None, **{"0.1": None, "0.2": None}), ["-", "-", "not known yet"]),
    ],
)  # fmt: skip
def test_the_end_of_the_range_is_named(study: StudyRecord, row: list[str]) -> None:
    assert tuned_table(study).rows == (("one", *row),)


def test_how_many_seeds_learned_is_named_where_not_all_did() -> None:
    study = tried(0.1, **{"0.01": 0.1, "0.1": 0.8, "0.2": 0.9, "1.0": None})
    plain = tuned_table(study)
    study.tuning["one"] |= {
        "seeds": [1000, 1001],
        "standard_errors": {"0.01": 0.02, "0.1": 0.01, "0.2": 0.03, "1.0": None},
        "learned": {"0.01": 0, "0.1": 2, "0.2": 1, "1.0": 0},
    }
    table = tuned_table(study)
    assert table.rows[0][1:-1] == (
        "10.00 ± 2.00 (0 of 2 learned)", "80.00 ± 1.00", "90.00 ± 3.00 (1 of 2 learned)",
        "- (0 of 2 learned)",
    )  # fmt: skip
    assert "among the values at which most seeds learned" in table.note
    assert "most seeds learned" not in plain.note


def test_variants_may_have_tried_different_values() -> None:
    both = tried(0.1, **{"0.1": 0.5, "0.2": 0.4})
    other = {**both.tuning["one"], "values": {"0.3": 0.7}, "chosen": 0.3}
    study = replace(both, tuning={**both.tuning, "two": other})
    table = tuned_table(study)
    assert table.columns == ("variant", "0.1", "0.2", "0.3", "learning rate taken")
    assert table.rows == (
        ("one", "50.00", "40.00", "", "0.1, the smallest tried"),
        ("two", "", "", "70.00", "0.3"),
    )


def test_a_study_that_tuned_nothing_has_no_such_part() -> None:
    assert not tuned_table(StudyRecord("none", "Which?", {}))
