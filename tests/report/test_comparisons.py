"""The result as data: the table `comparisons`, JSON, and the numbers of `bench.Report`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import bench as package
from bench.report.pages.study_report import read_study_report
from bench.store import Store
from builders import make_unfinished

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_a_comparison_is_the_difference_that_the_page_shows(trained: Path) -> None:
    (row,) = package.load_results(trained, "comparisons").to_dict("records")
    runs = package.load_results(trained / "studies" / "tiny.json").set_index(["variant", "seed"])
    accuracy = runs["test_accuracy"]
    by_seed = accuracy["plain"] - accuracy["residual"]
    assert row["difference"] == pytest.approx(by_seed.mean())
    assert row["standard_deviation"] == pytest.approx(by_seed.std())
    assert row["comparison"] == "plain - residual"
    assert (row["variant"], row["reference"], row["accuracy"]) == ("plain", "residual", "test")
    assert (row["seeds"], row["test"], row["level"]) == (2, "paired", 0.05)
    assert row["significant"] == (row["p_value"] < 0.05)
    assert row["ci_low"] < row["difference"] < row["ci_high"]
    (shown,) = read_study_report(Store(trained), "tiny").comparisons.rows
    ends = f"[{row['ci_low'] * 100:+.2f}, {row['ci_high'] * 100:+.2f}]"
    assert f"{row['difference'] * 100:+.2f} {ends}" in shown


def test_contrasts_training_accuracies_and_margins_have_rows(results: Path) -> None:
    store = Store(results)
    study = store.find_study("tiny")
    store.save_study(
        replace(
            study,
            compare_training=True,
            margin=100.0,
            contrasts={"half": {"plain": 0.5, "residual": -0.5}},
        )
    )
    frame = package.load_results(results, "comparisons")
    assert frame["accuracy"].tolist() == ["test", "test", "train", "train"]
    assert frame["comparison"].tolist()[:2] == ["plain - residual", "0.5 plain - 0.5 residual"]
    assert frame["contrast"].tolist()[1] == "half"
    assert frame["difference"].tolist()[1] == pytest.approx(frame["difference"].tolist()[0] / 2)
    assert frame["margin"].eq(1.0).all()
    assert frame["level"].eq(0.0125).all()  # 0.05, shared by four
    assert frame["equivalent"].notna().all()


def test_what_cannot_be_compared_has_a_row_without_numbers(results: Path) -> None:
    store = Store(results)
    for run in store.find_study("tiny").variants["plain"]["runs"].values():
        make_unfinished(store, run)
    (row,) = package.load_results(results, "comparisons").to_dict("records")
    assert row["seeds"] == 0
    assert row["difference"] != row["difference"]  # missing
    run = next(iter((results / "runs").iterdir()))
    assert package.load_results(run, "comparisons").empty  # one run is compared with nothing


def test_a_study_of_different_images_is_left_out_with_a_warning(results: Path) -> None:
    store = Store(results)
    record = next(store.runs())
    path = results / "runs" / record.run / "run.json"
    path.write_bytes(
        replace(record, result={**record.result, "dataset_fingerprint": "other"}).to_json()
    )
    with pytest.warns(UserWarning, match="compares runs on different images"):
        assert package.load_results(results, "comparisons").empty


def test_both_commands_give_answer_and_comparisons_as_json(
    bench: Callable, results: Path, tiny_study: Path
) -> None:
    done = bench("run-ablation", tiny_study, "--results", results, "--threads", 1, "--json")
    assert done.code == 0, done
    document = done.document
    report = read_study_report(Store(results), "tiny")
    assert document["answer"] == report.answer
    (row,) = document["comparisons"]
    assert row["variant"] == "plain"
    assert isinstance(row["p_value"], float)
    out = bench("report", "tiny", "--results", results, "--format", "json", "--output", "-").out
    assert json.loads(out) == document


def test_a_report_in_python_has_numbers(trained: Path) -> None:
    report = package.Report(trained, "tiny")
    assert report.comparisons.equals(package.load_results(trained, "comparisons"))
    numbers = report.numbers
    accuracies = report.load().groupby("variant", observed=True)["test_accuracy"].mean()
    for name in ("residual", "plain"):
        row = numbers.loc[name]
        assert row["test_accuracy"] == pytest.approx(accuracies[name])
        assert row["test_accuracy_low"] < row["test_accuracy"] < row["test_accuracy_high"]
        assert (row["parameters"], row["seeds"]) == (4934, 2)
