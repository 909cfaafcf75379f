"""A study's summary and the sentence that answers it: from recorded runs to words."""

from __future__ import annotations

import io
import random
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

import builders
from bench.report.findings.answer import answer, outlook, statements
from bench.report.findings.power import power
from bench.report.pages.html import html
from bench.report.pages.markdown import markdown
from bench.report.pages.study_report import read_study_report
from bench.report.study_data import StudyData
from bench.report.tables.study import study_table
from bench.store import Store, StudyRecord

if TYPE_CHECKING:
    from pathlib import Path

    from bench.report.findings.summaries import VariantSummary
    from bench.studies.run_request import RunRequest

Value = float | str  # a test accuracy, or the status of a run that has none


def summaries_of(store: Store, study: StudyRecord) -> list[VariantSummary]:
    return StudyData(store, study).summaries


def lines_of(summaries: list[VariantSummary]) -> list[tuple[str, ...]]:
    table = study_table(summaries, StudyRecord("mine", "Why?", {}))
    return [table.columns, *table.rows]


def make_study(
    root: Path,
    values: dict[str, list[Value]],
    references: dict[str, str | None] | None = None,
    trained: dict[str, list[float]] | None = None,
    **result: Any,
) -> tuple[Store, StudyRecord]:
    """Record a study with these accuracies, seed by seed, without training anything."""
    store, variants = Store(root), {}
    for position, (name, by_seed) in enumerate(values.items()):
        runs = variants[name] = []
        for seed, value in enumerate(by_seed):
            request = builders.make_request(f"resnet{6 * position + 8}", seed=seed)
            runs.append(request.run_id)
            own = {"train_accuracy": trained[name][seed]} if trained else {}
            save(store, request, value, {**result, **own})
    study = builders.make_study(variants, references)
    store.save_study(study)
    return store, study


def save(store: Store, request: RunRequest, value: Value, result: dict[str, Any]) -> None:
    status = value if isinstance(value, str) else "complete"
    if status == "to do":
        return
    figures = {
        "test_accuracy": value, "train_accuracy": 0.99, "parameters": 11_689_512, "macs": 123,
        "images_per_second": 1000.0, "input_shape": [1, 28, 28], **result,
    }  # fmt: skip
    ended = {"result": figures} if status == "complete" else {"error": "why"}
    record = builders.make_record(request, status=status, **ended)
    if status in {"complete", "diverged"}:
        store.finish_run(record)
    else:
        store.mark_unfinished(record)


REFERENCE = [0.900, 0.902, 0.899]
WORSE = [0.850, 0.853, 0.848]
SAME = [0.903, 0.899, 0.901]
UNCLEAR = [0.890, 0.8985, 0.8915]

ANSWERS: dict[str, tuple[dict[str, list[Value]], str]] = {
    "better": (
        {"plain": [*WORSE], "residual": [*REFERENCE]},
        (
            r"residual is significantly better than plain, by 5\.0 points of test accuracy "
            r"\(95 % interval 4\.\d to 5\.\d, n = 3\)\."
        ),
    ),
    "worse": (
        {"residual": [*REFERENCE], "plain": [*WORSE]},
        (
            r"plain is significantly worse than residual, by 5\.0 points of test accuracy "
            r"\(95 % interval 4\.\d to 5\.\d, n = 3\)\."
        ),
    ),
    "no spread": (
        {"a": [*REFERENCE], "b": [*REFERENCE]},
        (
            r"No difference can be tested that is the same for each seed: "
            r"b and a \(\+0\.00 points\)\."
        ),
    ),
    "undecided": (
        {"a": [*REFERENCE], "b": [*SAME]},
        r"There is no significant difference between b and a \(n = 3\)\.",
    ),
    "two undecided": (
        {"a": [*REFERENCE], "b": [*SAME], "c": [*reversed(SAME)]},
        r"There is no significant difference between b and a or c and a \(n = 3\)\.",
    ),
    "one of each": (
        {"a": [*REFERENCE], "b": [*SAME], "c": [*WORSE]},
        (
            r"c is significantly worse than a, by 5\.0 points .*; "
            r"there is no significant difference between b and a \(n = 3\)\."
        ),
    ),
    "one seed": (
        {"a": [0.9], "b": [0.5]},
        r"No difference can be tested with one seed: b and a \(-40\.00 points\)\.",
    ),
    "some seeds": (
        {"a": [*REFERENCE], "b": [*SAME], "c": [0.901, 0.899]},
        r"There is no significant difference between b and a or c and a \(n = 2 to 3\)\.",
    ),
    "a variant diverged": (
        {"a": [*REFERENCE], "b": ["diverged"] * 3},
        (
            r"b has no result to compare \(3 diverged\); b did not learn in 3 of 3 runs .*, "
            r"Fisher's exact test, uncorrected, gives p = 0\.100\)\."
        ),
    ),
    "the reference failed": (
        {"a": ["out_of_memory", "failed", "failed"], "b": [*SAME]},
        (
            r"a has no result to compare \(2 failed, 1 out of memory\); "
            r"b cannot be compared \(a shares no tested seed\)\."
        ),
    ),
    "some runs of a variant diverged": (
        {"a": [*REFERENCE], "b": ["diverged", 0.899, 0.903]},
        (
            r"b has a result for 2 seeds only \(1 diverged\); there is no significant "
            r"difference between b and a \(n = 2\); b did not learn in 1 of 3 runs "
            r"\(diverged, or at the accuracy of guessing; against a's rate, Fisher's exact test, "
            r"uncorrected, gives p = 1\.000\)\."
        ),
    ),
    "a better one lacks a seed": (
        {"a": [*WORSE], "b": ["failed", 0.9041, 0.899]},
        (
            r"b has a result for 2 seeds only \(1 failed\); no claim is made about b and a, "
            r"because results are missing, and in the worst case the difference is not "
            r"significant\."
        ),
    ),
    "a worse one lacks a seed": (
        {"a": [*REFERENCE], "b": [0.8521, "failed", 0.851]},
        (
            r"b has a result for 2 seeds only \(1 failed\); no claim is made about b and a, "
            r"because results are missing, and in the worst case .*"
        ),
    ),
    "a seed is still to come": (
        {"a": [*REFERENCE], "b": [0.853, 0.851, "interrupted"]},
        (
            r"b has a result for 2 seeds only \(1 interrupted\); b and a are not compared before "
            r"all of their runs have ended\."
        ),
    ),
    "no run yet": (
        {"a": ["to do"], "b": ["to do"]},
        r"a has no result yet; b has no result yet\.",
    ),
    "a single variant": ({"a": [*REFERENCE]}, r"There is nothing to compare yet\."),
}


@pytest.mark.parametrize(("values", "sentence"), ANSWERS.values(), ids=ANSWERS)
def test_the_answer_says_what_the_numbers_say(
    values: dict[str, list[Value]], sentence: str, tmp_path: Path
) -> None:
    text = answer(summaries_of(*make_study(tmp_path, values)))
    assert re.fullmatch(sentence, text), text


def test_many_comparisons_need_a_smaller_p_value(tmp_path: Path) -> None:
    slightly = [0.890, 0.8945, 0.888]  # p = 0.02 alone
    assert builders.compare_all(
        {"a": dict(enumerate(REFERENCE)), "b": dict(enumerate(slightly))}, {"b": {"b": 1, "a": -1}}
    )["b"].significant
    two = {"a": [*REFERENCE], "b": [*slightly]}
    assert "worse" in answer(summaries_of(*make_study(tmp_path / "two", two)))
    many = {**two, **{f"c{n}": [*SAME] for n in range(8)}}
    summaries = summaries_of(*make_study(tmp_path / "many", many))
    assert "worse" not in answer(summaries)


def test_every_variant_can_have_a_reference_of_its_own(tmp_path: Path) -> None:
    values: dict[str, list[Value]] = {"a": [*REFERENCE], "b": [*WORSE], "c": [0.852, 0.851, 0.849]}
    text = answer(summaries_of(*make_study(tmp_path, values, references={"c": "b"})))
    assert "b is significantly worse than a, by 5.0 points of test accuracy" in text
    assert "no significant difference between c and b" in text


def test_a_short_answer_is_a_paragraph_and_a_long_one_a_list(tmp_path: Path) -> None:
    short: dict[str, list[Value]] = {"a": [*REFERENCE], "b": [*WORSE], "c": [*SAME]}
    summaries = summaries_of(*make_study(tmp_path / "short", short))
    assert statements(summaries) == [" ".join([answer(summaries), *outlook(summaries)])]
    long: dict[str, list[Value]] = {**short, "d": [*WORSE], "e": [*WORSE]}
    store, study = make_study(tmp_path / "long", long)
    summaries = summaries_of(store, study)
    first, *others = statements(summaries)
    assert len([first, *others]) == 5  # b, d and e are worse, c undecided, how many seeds for c
    assert first.startswith("b is significantly worse than a, by 5.0 points of test accuracy (")
    assert others[-1:] == outlook(summaries)
    told = answer(summaries)
    assert [text.rstrip(".").lower() in told.lower() for text in others[:-1]] == [True] * 3
    report = read_study_report(store, study.name)
    page = markdown(report)
    assert "".join(f"\n- {text}" for text in (first, *others)) in page
    assert re.findall(r"<li>(.* points of test accuracy .*)</li>", html(report))[0] == first


def test_no_printed_difference_is_larger_than_accuracies_can_differ(tmp_path: Path) -> None:
    values: dict[str, list[Value]] = {"a": [0.9, 0.1, 0.8], "b": [0.2, 0.9, 0.3]}
    store, study = make_study(tmp_path, values)
    study = replace(study, contrasts={"twice": {"b": 2.0, "a": -2.0}})
    store.save_study(study)
    report = read_study_report(store, study.name)
    rows = {row[0].split(":")[0]: row for row in report.comparisons.rows}
    assert rows["b - a"][2] == "-13.33 [-100.00, +100.00]"
    assert rows["twice"][2] == "-26.67 [-200.00, +200.00]"
    assert {row[4] for row in rows.values()} == {"more than possible"}
    said = " ".join(report.statements)
    assert "b and a more than is possible (-13.33, " in said
    assert "-26.7 points of test accuracy (95 % interval -200.0 to +200.0, n = 3)" in said
    (drawn,) = [c for c in report.overview if c.key == "differences"]
    ends = {s.name: (s.low, s.high) for s in drawn.series if s.low}
    assert ends["b"] == ([-100], [100])


def test_a_value_without_spread_is_explained(tmp_path: Path) -> None:
    trained = {"a": REFERENCE, "b": SAME}
    spread = make_study(tmp_path / "spread", {"a": [*REFERENCE], "b": [*SAME]}, trained=trained)
    same = make_study(tmp_path / "same", {"a": [0.9] * 3, "b": [*SAME]}, trained=trained)
    text = "A value with (all n seeds) is the same for each seed, so it has no interval."
    for (store, study), said in ((spread, False), (same, True)):
        table = study_table(summaries_of(store, study), study)
        assert (text in table.note) == said
        assert (table.rows[0][1] == "90.00 (all 3 seeds)") == said


def test_training_accuracies_are_compared_where_the_study_asks(tmp_path: Path) -> None:
    values: dict[str, list[Value]] = {"a": [*SAME], "b": [*REFERENCE], "c": [*WORSE]}
    store, study = make_study(tmp_path, values, trained={"a": REFERENCE, "b": WORSE, "c": SAME})
    plain = lines_of(summaries_of(store, study))
    summaries = summaries_of(store, replace(study, compare_training=True))
    headings, a, b, c = lines_of(summaries)
    place = headings.index("train accuracy %")
    assert headings[place + 1 : place + 3] == ("train difference (points)", "train p (adjusted)")
    assert a[place + 1 : place + 3] == ("reference", "")
    seen = {"b": dict(enumerate(WORSE)), "a": dict(enumerate(REFERENCE)), "c": {}}
    family = {"b": {"b": 1, "a": -1}, "c": {"c": 1, "a": -1}}
    difference = builders.compare_all(seen, family, members=4)["b"]  # with the two of test accuracy
    assert difference is not None
    ends = [f"{end * 100:+.2f}" for end in (difference.low or 0, difference.high or 0)]
    assert b[place + 1] == f"{difference.mean * 100:+.2f} [{', '.join(ends)}]"
    tested_figures = {headings.index("difference (points)"), headings.index("p (adjusted)")}
    left_out = {*tested_figures, place + 1, place + 2}
    assert [[v for n, v in enumerate(r) if n not in left_out] for r in (headings, a, b, c)] == [
        [v for n, v in enumerate(row) if n not in tested_figures] for row in plain
    ]
    tested, trained = re.split(r"(?<=\)\.) (?=b is)", answer(summaries))
    alone = answer(summaries_of(store, study))
    number = re.compile(r"[\d.]+ to [\d.]+")
    assert number.sub("", tested) == number.sub("", alone)
    assert tested != alone  # four comparisons instead of two
    assert re.fullmatch(
        r"b is significantly worse than a, by 5\.0 points of training accuracy \(95 % interval "
        r"[\d.]+ to [\d.]+, n = 3\); there is no significant difference in training accuracy "
        r"between c and a \(n = 3\)\.",
        trained,
    ), trained


def test_made_up_images_have_no_accuracy(tmp_path: Path) -> None:
    store, study = make_study(tmp_path, {"a": [0.9, 0.9], "b": [0.1, 0.2]}, timing_only=True)
    summaries = summaries_of(store, study)
    assert answer(summaries) == (
        "a has no accuracy (its images are synthetic, for timing only); "
        "b has no accuracy (its images are synthetic, for timing only)."
    )
    assert all(cells[1] == cells[4] == "-" for cells in lines_of(summaries)[1:])


def test_the_table_shows_what_was_measured_and_what_is_missing(tmp_path: Path) -> None:
    values: dict[str, list[Value]] = {
        "a": [*REFERENCE],
        "b": [*WORSE],
        "c": [0.5],
        "d": ["diverged", "failed", "failed"],
    }
    headings, a, b, c, d = lines_of(summaries_of(*make_study(tmp_path, values)))
    assert len(headings) == len(a) == len(d)
    assert (a[0], *a[5:7]) == ("a", "11.69 M", "123")
    assert a[1].startswith("90.03 ± ")
    assert a[2:4] == ("reference", "")
    assert re.fullmatch(r"-5\.00 \[-5\.\d\d, -4\.\d\d\]", b[2])
    assert b[3] == "<0.001"
    assert c[1:4] == ("50.00 (1 seed)", "-40.00 (1 seed)", "")
    assert d == ("d (2 failed, 1 diverged)", "-", "-", "", "-", "-", "-", "-")


@pytest.mark.parametrize(
    ("count", "text"),
    [(999, "999"), (1_000, "1 k"), (999_949, "999.9 k"), (999_999, "1 M"), (11_689_512, "11.69 M")],
)
def test_a_number_of_parameters_has_the_unit_that_fits(
    count: int, text: str, tmp_path: Path
) -> None:
    _, row = lines_of(summaries_of(*make_study(tmp_path, {"a": [0.9]}, parameters=count)))
    assert row[5] == text


def test_a_name_with_brackets_is_printed_as_it_is(tmp_path: Path) -> None:
    values: dict[str, list[Value]] = {"width [4]": [0.5], "[/odd]": [0.5]}
    table = study_table(
        summaries_of(*make_study(tmp_path, values)), StudyRecord("mine", "Why?", {})
    ).to_terminal()
    out = io.StringIO()
    Console(file=out, width=200).print(table)
    assert "width [4]" in out.getvalue()
    assert "[/odd]" in out.getvalue()


def test_an_undecided_comparison_says_what_it_could_have_found(tmp_path: Path) -> None:
    summaries = summaries_of(
        *make_study(tmp_path, {"a": [*REFERENCE], "b": [*SAME], "c": [*WORSE], "d": [*UNCLEAR]})
    )
    (line,) = outlook(summaries)
    found = re.fullmatch(
        r"Differences that these seeds would find with 80 % power \(in brackets the observed "
        r"difference, and the seeds that it needs if it is the true one\): b and a ([\d.]+) points "
        r"\(\+0\.07, more than 50\), d and a ([\d.]+) points \(-0\.70, (\d+) to (\d+)\)\.",
        line,
    )
    assert found is not None, line
    unclear = summaries[3].difference
    assert unclear is not None
    assert unclear.detectable is not None
    assert unclear.detectable * 100 == pytest.approx(float(found[2]), abs=0.05)
    effect = unclear.detectable / (unclear.mean / (unclear.effect_size or 1))
    assert power(effect, 3, level=0.05 / 3) == pytest.approx(0.8)
    assert 3 < int(found[3]) < int(found[4])


def test_an_undecided_primary_comparison_of_training_accuracy_says_it_too(tmp_path: Path) -> None:
    trained = {"a": [*REFERENCE], "b": [*UNCLEAR]}
    store, study = make_study(tmp_path, {"a": [*REFERENCE], "b": [*WORSE]}, trained=trained)
    study = replace(study, compare_training=True, primary={"name": "b", "accuracy": "train"})
    summaries = summaries_of(store, study)
    tested = summaries[1].train_difference
    assert tested is not None
    assert tested.detectable is not None
    (line,) = outlook(summaries)
    assert f": b and a, training, {tested.detectable * 100:.1f} points (-0.70, " in line


def test_one_seed_has_no_outlook(tmp_path: Path) -> None:
    assert outlook(summaries_of(*make_study(tmp_path, {"a": [0.9], "b": [0.5]}))) == []


def test_no_numbers_make_the_answer_say_better_while_the_interval_holds_zero(
    tmp_path: Path,
) -> None:
    generator = random.Random(3)
    for number in range(15):
        seeds = generator.choice([1, 2, 3, 5, 20])
        shift = generator.choice([0.0, 0.002, 0.01, -0.01])
        values: dict[str, list[Value]] = {
            name: [0.9 + gain + generator.gauss(0, 0.004) for _ in range(seeds)]
            for name, gain in {"a": 0.0, "b": shift}.items()
        }
        summaries = summaries_of(*make_study(tmp_path / str(number), values))
        difference = summaries[1].difference
        assert difference is not None
        text = answer(summaries)
        if difference.low is None or difference.high is None or difference.low <= 0:
            assert "better" not in text
        if difference.high is None or difference.high >= 0:
            assert "worse" not in text


def test_values_that_are_no_numbers_are_no_results(tmp_path: Path) -> None:
    nan = float("nan")
    summaries = summaries_of(*make_study(tmp_path, {"a": [nan, nan], "b": [nan, 0.5]}))
    assert "better" not in answer(summaries)
    assert "worse" not in answer(summaries)
    assert all("nan" not in cell for cells in lines_of(summaries) for cell in cells)


@pytest.mark.parametrize(
    ("accuracies", "doubted"),
    [([0.10, 0.10, 0.10], True), ([0.14, 0.09, 0.11], True), ([0.10, 0.10, 0.31], False)],
)
def test_a_network_that_only_guesses_is_doubted(tmp_path, accuracies, doubted):
    store, study = make_study(
        tmp_path, {"residual": accuracies, "plain": [*REFERENCE]}, classes=list("abcdefghij")
    )
    said = answer(summaries_of(store, study))
    words = "residual is hardly better than guessing (10%)"
    assert (words in said) is doubted
    assert "plain is hardly" not in said


def test_guessing_is_by_the_number_of_classes(tmp_path):
    values = {"residual": [0.10, 0.10], "plain": [0.10, 0.11]}
    hundred = make_study(tmp_path, values, classes=[str(n) for n in range(100)])
    assert "guessing" not in answer(summaries_of(*hundred))


@pytest.mark.parametrize(("accuracy", "doubted"), [(0.52, True), (0.74, False)])
def test_three_of_four_right_of_two_classes_is_no_guessing(tmp_path, accuracy, doubted):
    values = {"residual": [accuracy, accuracy - 0.01], "plain": [accuracy - 0.01, accuracy]}
    two = make_study(tmp_path, values, classes=["cat", "dog"])
    assert ("guessing" in answer(summaries_of(*two))) is doubted
