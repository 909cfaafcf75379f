"""The same test images: McNemar's test by seed, wired from recorded predictions to words."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from scipy import stats

import builders
from bench.report.findings.agreement import agreement as compare
from bench.report.findings.answer import answer
from bench.report.findings.summaries import summarise, summarise_contrasts
from bench.report.pages.markdown import markdown
from bench.report.pages.study_report import StudyReport, read_study_report
from bench.report.study_data import StudyData
from bench.report.tables.study import SAME_IMAGES, same_images_table
from bench.store import Store, StudyRecord

if TYPE_CHECKING:
    from pathlib import Path

    from bench.report.findings.agreement import Agreement

IMAGES = 100


def agreement(store: Store, study: StudyRecord) -> Agreement:
    data = StudyData(store, study)
    rows = (*summarise(data.outcomes), *summarise_contrasts(data.outcomes))
    tested = {row.name: row.difference for row in rows}
    return compare(study, data.records, *data.predictions, tested)


def make_study(
    root: Path, wrong: dict[str, list[set[int] | str]], **result: Any
) -> tuple[Store, StudyRecord]:
    """Record networks that take exactly these test images for another class, seed by seed.

    Text is the status of a run without a result.
    """
    store, variants = Store(root), {}
    for position, (name, by_seed) in enumerate(wrong.items()):
        runs = variants[name] = []
        for seed, images in enumerate(by_seed):
            request = builders.make_request(f"resnet{6 * position + 8}", seed=seed)
            runs.append(request.run_id)
            if isinstance(images, str):
                if images != "to do":
                    record = builders.make_record(request, status=images, error="why")
                    (store.finish_run if images == "diverged" else store.mark_unfinished)(record)
                continue
            predictions = torch.zeros(IMAGES, dtype=torch.int32)
            predictions[sorted(images)] = 1
            record = builders.make_record(
                request,
                result={"test_accuracy": 1 - len(images) / IMAGES, "dataset_fingerprint": "one",
                        "parameters": 10, "macs": 10, **result},
            )  # fmt: skip
            labels = torch.zeros(IMAGES, dtype=torch.int32)
            tensors = {"predictions": predictions, "labels": labels}
            store.finish_run(record, tensors={"predictions.safetensors": tensors})
    study = builders.make_study(variants)
    store.save_study(study)
    return store, study


def test_trained_networks_are_compared_as_scipy_does(trained: Path) -> None:
    store = Store(trained)
    study = store.find_study("tiny")
    found = agreement(store, study)
    assert [(c.variant, c.reference, c.seed) for c in found.comparisons] == [
        ("plain", "residual", 0),
        ("plain", "residual", 1),
    ]
    expected = []
    for seed in ("0", "1"):
        right = []
        for variant in ("plain", "residual"):
            folder = store.folder(study.variants[variant]["runs"][seed])
            tensors = load_file(folder / "predictions.safetensors")
            right.append(tensors["predictions"] == tensors["labels"])
        ours, theirs = (right[0] & ~right[1]).sum(), (right[1] & ~right[0]).sum()
        expected.append((1000, ours, theirs, stats.binomtest(ours, ours + theirs).pvalue))
    got = [c.found for c in found.comparisons]
    assert [(d.images, d.only_first, d.only_second) for d in got] == [e[:3] for e in expected]
    assert [d.p_value for d in got] == pytest.approx([e[3] for e in expected])
    assert list(found.among_seeds) == ["residual"]
    assert found.among_seeds["residual"] > 0


def test_the_words_count_what_the_rows_hold(tmp_path: Path) -> None:
    apart, alike = set(range(20)), {0, 1}
    wrong = {"a": [alike, alike, alike], "b": [apart, apart, {1, 2}]}
    found = agreement(*make_study(tmp_path, wrong))
    first, second, third = found.comparisons
    assert (first.found.only_first, first.found.only_second) == (0, 18)
    assert first.found.p_value == pytest.approx(2 * 0.5**18)
    assert second.found.p_value == first.found.p_value
    assert third.found.p_value == 1.0
    assert same_images_table(found).rows[2] == ("b", "a", "2", "100", "1", "1", "1.000")
    (sentence,) = found.sentences
    assert re.fullmatch(
        r"For 12\.7 % of the test images, just one of b and a is right \(mean of 3 seeds\); of two "
        r"seeds of a, for 0\.0 %; for new seeds and new test images, the difference in accuracy is "
        r"-12\.0 points \(95 % interval -[\d.]+ to \+[\d.]+\)\.",
        sentence,
    ), sentence


def test_seeds_that_differ_among_themselves_are_said(tmp_path: Path) -> None:
    low, high = set(range(20)), set(range(50, 80))
    found = agreement(*make_study(tmp_path, {"a": [set(), low, set()], "b": [low, high, low]}))
    assert found.among_seeds == {"a": pytest.approx(0.2)}
    assert "; of two seeds of a, for 20.0 %;" in found.sentences[0]


# What the better of two networks takes for another class, with little spread over seeds.
BAD, GOOD = [set(range(30)), set(range(31)), set(range(29))], [{40}, {40}, {41, 42}]
MISSING = "results are missing, and in the worst case the difference is not significant"
NONE = "no difference for new test images is given, because "


@pytest.mark.parametrize(
    ("b", "declared", "why"),
    [
        ([*GOOD, "diverged", "diverged"], [], "seeds 3, 4 cannot be compared on the same images"),
        ([*GOOD, "failed", "failed"], [], MISSING),
        ([*GOOD, "to do", {40}], [], "not all of its runs have ended"),
        ([*GOOD, {43}, {44}], [0, 1, 2, 3, 4, 5], "not all of its runs have ended"),
    ],
)
def test_new_images_obey_the_rules_of_the_answer(
    b: list[set[int] | str], declared: list[int], why: str, tmp_path: Path
) -> None:
    wrong = {"a": [*BAD, set(range(30)), set(range(28))], "b": b}
    store, study = make_study(tmp_path, wrong, classes=list("abcdefghij"))
    study = replace(study, declared_seeds=declared)
    assert "significantly better" not in answer(StudyData(store, study).summaries)
    found = agreement(store, study)
    assert found.new_images == {}
    assert found.sentences[0].endswith(f"; {NONE}{why}.")


def test_new_images_are_not_for_others_while_the_primary_comparison_is_not_significant(
    tmp_path: Path,
) -> None:
    store, study = make_study(tmp_path, {"a": [*BAD], "b": [*GOOD], "c": [{1}, set(), {2}]})
    study = replace(study, primary={"name": "b", "accuracy": "test"})
    assert list(agreement(store, study).new_images) == ["b", "c"]
    store, study = make_study(tmp_path / "two", {"a": [*BAD], "b": BAD[::-1], "c": [*GOOD]})
    found = agreement(store, replace(study, primary={"name": "b", "accuracy": "test"}))
    assert list(found.new_images) == ["b"]
    assert (
        f"{NONE}the study's primary comparison is not, or not yet, significant."
        in found.sentences[1]
    )


def test_new_images_are_those_of_the_declared_seeds_at_the_level_of_all_comparisons(
    tmp_path: Path,
) -> None:
    wrong = {"a": [*BAD, {1}], "b": [*GOOD, set(range(90))]}
    store, study = make_study(tmp_path / "one", wrong)
    found = agreement(store, replace(study, declared_seeds=[0, 1, 2]))
    assert [row.seed for row in found.comparisons] == [0, 1, 2]
    mean, low, high = found.new_images["b"]
    assert mean == pytest.approx((29 + 30 + 27) / 300)
    assert "(mean of 3 seeds)" in found.sentences[0]
    store, study = make_study(tmp_path / "more", {**wrong, "c": [*GOOD, {1}]})
    study = replace(study, declared_seeds=[0, 1, 2])
    wider = agreement(store, study).new_images["b"]
    assert (wider[0], wider[1] < low, wider[2] > high) == (mean, True, True)
    tested = StudyData(store, study).summaries[1].difference
    assert tested is not None
    assert (wider[1] <= (tested.low or 0), wider[2] >= (tested.high or 0)) == (True, True)


def test_a_contrast_has_an_interval_for_new_images(tmp_path: Path) -> None:
    weights = {"b": 1.0, "a": -0.5, "c": -0.5}
    wrong = {"a": [*BAD], "b": [*GOOD], "c": [{1}, set(), {2}]}
    store, study = make_study(tmp_path / "one", wrong)
    study = replace(study, contrasts={"mean": weights})
    found = agreement(store, study)
    mean, low, high = found.new_images["mean"]
    wrong_images = {name: sum(map(len, by_seed)) / 300 for name, by_seed in wrong.items()}
    assert mean == pytest.approx(-sum(w * wrong_images[name] for name, w in weights.items()))
    (contrast,) = StudyData(store, study).contrasts
    assert contrast.difference is not None
    assert (low <= contrast.difference.low, high >= contrast.difference.high) == (True, True)
    assert re.fullmatch(
        r"For new seeds and new test images, mean \(b - 0\.5 a - 0\.5 c\) is \+14\.0 points "
        r"\(95 % interval [+-][\d.]+ to \+[\d.]+\)\.",
        found.sentences[-1],
    ), found.sentences[-1]
    rows = StudyData(store, study).comparisons.set_index("comparison")
    ends = ["new_images_low", "new_images_high"]
    assert tuple(rows.loc["b - 0.5 a - 0.5 c", ends]) == (low, high)
    assert tuple(rows.loc["b - a", ends]) == found.new_images["b"][1:]
    shares = ["discordant", "discordant_seeds"]
    assert rows.loc["b - a", shares].tolist() == pytest.approx([0.94 / 3, 0.015])
    assert rows.loc["b - 0.5 a - 0.5 c", shares].isna().all()
    # A comparison with weights 1 and -1 is the same as a contrast.
    study = replace(study, contrasts={"pair": {"b": 1.0, "a": -1.0}})
    found = agreement(store, study)
    assert found.new_images["pair"] == pytest.approx(found.new_images["b"])
    lost = {**wrong, "c": [{1}, {3, 4}, "failed"]}
    store, study = make_study(tmp_path / "two", lost, classes=list("abcdefghij"))
    found = agreement(store, replace(study, contrasts={"mean": weights}))
    assert "mean" not in found.new_images
    assert "mean is not given for new test images, because" in found.sentences[-1].lower()


def test_a_page_of_contrasts_alone_shows_their_intervals_for_new_images(tmp_path: Path) -> None:
    store, study = make_study(tmp_path, {"a": [*BAD], "b": [*GOOD]}, classes=list("abcdefghij"))
    variants = {name: {**entry, "reference": None} for name, entry in study.variants.items()}
    study = replace(study, variants=variants, contrasts={"pair": {"b": 1.0, "a": -1.0}})
    page = markdown(StudyReport(StudyData(store, study)))
    assert "For new seeds and new test images, pair (b - a) is +28.7 points" in page
    assert "seed by seed" not in page


def test_one_seed_has_no_measure(tmp_path: Path) -> None:
    found = agreement(*make_study(tmp_path, {"a": [set()], "b": [set(range(30))]}))
    assert found.sentences == [
        "For 30.0 % of the test images, just one of b and a is right (one seed)."
    ]


def test_runs_of_other_training_images_have_the_same_test_images(tmp_path: Path) -> None:
    """Of two runs that record both fingerprints, an older one's is known, too."""
    store, study = make_study(tmp_path, {"a": [*BAD, {1}], "b": [*GOOD, {40}]})
    for name, seed, alone in (("a", 0, True), ("a", 1, True), ("a", 2, False), ("b", 0, True)):
        record = store.read_run(study.variants[name]["runs"][str(seed)])
        assert record is not None
        record.result["dataset_fingerprint"] = "one" if name == "a" else "two"
        record.result.update({"test_fingerprint": "test"} if alone else {})
        (store.folder(record.run) / "run.json").write_bytes(record.to_json())
    found = agreement(store, study)
    assert [row.seed for row in found.comparisons] == [0, 1, 2, 3]
    assert "b" in found.new_images


def test_what_is_not_compared_on_the_same_images_is_said(tmp_path: Path) -> None:
    store, study = make_study(tmp_path, {"a": [*BAD], "b": [*GOOD]}, classes=list("abcdefghij"))
    for run in study.variants["b"]["runs"].values():
        record = store.read_run(run)
        assert record is not None
        record.result["dataset_fingerprint"] = "two"
        (store.folder(run) / "run.json").write_bytes(record.to_json())
    study = replace(study, contrasts={"b-a": {"b": 1.0, "a": -1.0}})
    why = "because seeds 0, 1, 2 cannot be compared on the same images."
    assert agreement(store, study).sentences == [
        f"b has no difference for new test images, {why}",
        f"b-a is not given for new test images, {why}",
    ]


@pytest.mark.parametrize("change", ["another dataset", "made up", "damaged", "gone"])
def test_what_cannot_be_compared_is_left_out(change: str, tmp_path: Path) -> None:
    result = {"timing_only": True} if change == "made up" else {}
    store, study = make_study(tmp_path, {"a": [{0}, {0}], "b": [{1}, {1}]}, **result)
    run = study.variants["a"]["runs"]["0"]
    if change == "another dataset":
        record = store.read_run(run)
        assert record is not None
        record.result["dataset_fingerprint"] = "two"
        (store.folder(run) / "run.json").write_bytes(record.to_json())
    elif change == "damaged":
        path = store.folder(run) / "predictions.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    elif change == "gone":
        store.remove_run(run)
    found = agreement(store, study)
    assert [c.seed for c in found.comparisons] == ([] if change == "made up" else [1])
    assert len(found.notes) == (1 if change == "damaged" else 0)
    if change == "damaged":
        assert "its checksum differs" in found.notes[0]
    assert "a" not in found.among_seeds


def test_the_page_shows_rows_and_how_to_read_them(tmp_path: Path) -> None:
    store, study = make_study(tmp_path, {"a": [{0}, {1}], "b|c": [set(range(40)), {5}]})
    text = markdown(read_study_report(store, study.name))
    assert SAME_IMAGES in text
    assert "\n| b\\|c | a | 0 | 100 | 0 | 39 | <0.001 |\n" in text
    assert np.count_nonzero([line.startswith("| b\\|c | a |") for line in text.splitlines()]) == 2
