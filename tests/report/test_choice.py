"""Choosing among measured networks: bounds, front, and honesty when nothing fits."""

from __future__ import annotations

import shlex

import pytest

from bench.errors import BenchError
from bench.export.settings import Settings
from bench.report.findings.choice import choose, describe, measured_rows
from bench.store import Store
from bench.store.exports import ExportRecord, Exports
from bench.store.measurements import MeasurementRecord, Measurements
from builders import make_record, make_request, make_row, make_study


def row(model, images_per_second, p99, accuracy, **changes):
    return make_row(
        model=model, images_per_second=images_per_second, latency_p99_ms=p99,
        latency_p99_high_ms=p99, latency_p99_scope="new process", test_accuracy=accuracy,
        file_sha256=None, scenario="offline",
        **{"ci_low": images_per_second, "ci_high": images_per_second, **changes},
    )  # fmt: skip


LARGE = row("resnet50", 100, 11.0, 0.950)
MIDDLE = row("resnet34", 200, 5.0, 0.945)
SMALL = row("resnet18", 400, 3.0, 0.930)
NOISY = {"noisy": True, "ratio": None}
WORSE = row("plain18", 390, 3.5, 0.920)


@pytest.fixture
def measured(tmp_path):
    def publish(*measurements):
        store = Measurements(tmp_path)
        for number, rows in enumerate(measurements):
            name = f"2026-{number}"
            named = [{**values, "measurement": name} for values in rows]
            store.publish(MeasurementRecord(name, {}, named), [])
        return tmp_path

    return publish


def chosen(folder, latency, drop):
    rows = measured_rows(Store(folder))
    return choose(rows, max_latency_ms=latency, max_accuracy_drop=drop)


def test_the_fastest_within_both_bounds_is_chosen(measured):
    folder = measured([LARGE, MIDDLE, SMALL, WORSE])
    assert chosen(folder, 20, 5).chosen["model"] == "resnet18"
    assert chosen(folder, 20, 0.5).chosen["model"] == "resnet34"  # the bounds themselves fit
    assert chosen(folder, 5, 0.5).chosen["model"] == "resnet34"
    assert chosen(folder, 20, 0.4).chosen["model"] == "resnet50"
    said = chosen(folder, 5, 0.5).sentence
    for figure in (
        "resnet34 in fp32 on onnxruntime",
        "200 images/s",
        "ships within 5 ms: p99 is at most 5 ms (95 %, of this row alone)",
        "94.50 %",
        "0.50",
    ):
        assert figure in said


def test_the_front_holds_what_no_other_beats(measured):
    rows = chosen(measured([LARGE, MIDDLE, SMALL, WORSE]), 5, 0.5).rows
    assert set(rows.loc[rows["front"], "model"]) == {"resnet50", "resnet34", "resnet18"}


def test_when_nothing_fits_it_says_so_and_what_comes_nearest(measured):
    choice = chosen(measured([LARGE, MIDDLE, SMALL]), 4, 0.5)
    assert choice.chosen is None
    assert choice.sentence == (
        "Nothing of 3 measured fits within 4 ms and 0.5 points; within the latency resnet18 in "
        "fp32 on onnxruntime, batch 1 loses 2.00 points; within the accuracy resnet34 in fp32 on "
        "onnxruntime, batch 1 takes 5 ms."
    )


def test_rows_that_cannot_be_judged_are_not_called_too_slow(measured):
    noisy = [{**row, **NOISY} for row in (LARGE, MIDDLE)]
    choice = chosen(measured(noisy), 50, 10)
    assert choice.sentence == "None of 2 measured can be judged; see the notes."


FAST = {"images_per_second": 1000, "latency_p99_high_ms": 1.0, "test_accuracy": 0.99}
NO_P99 = {"latency_p99_ms": None, "latency_p99_high_ms": None}
NOTED = {
    "noisy": NOISY,
    "one process": {"processes": 1},
    "five processes": {"processes": 5},
    "a number of processes that is not known": {"processes": None},
    "busy": {"other_processes": 0.5},
    "no p99": NO_P99,
    "no accuracy": {"test_accuracy": None},
}


@pytest.mark.parametrize("note", NOTED)
def test_a_row_that_cannot_be_chosen_is_shown_with_its_reason(note, measured, bench):
    folder = measured([{**LARGE, **FAST, **NOTED[note]}, MIDDLE])
    note = "fewer than 6 processes" if "process" in note else note
    choice = chosen(folder, 50, 10)
    assert choice.chosen["model"] == "resnet34"
    assert choice.passed_over == {}
    by_model = choice.rows.set_index("model")
    assert by_model["note"].to_dict() == {"resnet50": note, "resnet34": ""}
    assert by_model["front"].to_dict() == {"resnet50": False, "resnet34": True}
    assert [reason.partition(":")[0] for reason in choice.reasons] == [f"1 {note}"]
    out = bench(
        "choose", "--results", folder, "--max-latency-ms", 50, "--max-accuracy-drop", 10
    ).out
    assert any(line.startswith("resnet50") and f" {note} " in line for line in out.splitlines())
    assert f"Cannot be chosen: 1 {note}: " in out


def test_five_candidates_have_one_answer_with_accuracy_and_p99_of_each(measured, bench):
    candidates = [
        LARGE,
        {**MIDDLE, "model": "net.onnx", "file_sha256": "f" * 64},
        {**SMALL, "model": "net.engine", "file_sha256": "e" * 64, "backend": "tensorrt-engine"},
        {**WORSE, **NO_P99},
        row("stranger", 300, 4.0, None, options="width=8"),
    ]
    folder = measured(candidates)
    found = bench("choose", "--results", folder, "--max-latency-ms", 5)
    assert found.code == 0
    lines = {line.split(" in ")[0]: line.split() for line in found.out.splitlines()}
    assert {"resnet50", "net.onnx", "net.engine", "plain18", "stranger width=8"} <= set(lines)
    assert lines["net.onnx"][-7:] == ["94.50", "0.50", "5", "200", "yes", "*", "-"]
    assert "Ship net.onnx in fp32" in found.out
    document = bench("choose", "--results", folder, "--max-latency-ms", 5, "--json").document
    assert len(document["rows"]) == 5


def test_the_accuracy_of_a_file_tested_since_is_found(measured):
    folder = measured([MIDDLE, {**SMALL, "file_sha256": "f" * 64, "test_accuracy": None}])
    exports = Exports(folder)
    with exports.workspace() as work:
        (work / "model.onnx").write_bytes(b"")
        values = {"sha256": "f" * 64, "bytes": 2_000_000, "test_accuracy": 0.944, "run": None}
        values |= {"file": "model.onnx", "export": "f" * 64, "status": "complete"}
        exports.publish(work, ExportRecord("f" * 64, {}, values))
    assert chosen(folder, 5, 0.5).chosen["model"] == "resnet18"
    assert chosen(folder, 5, 0.5).chosen["bytes"] == 2_000_000


def test_without_any_accuracy_it_names_the_fastest_within_the_latency(measured):
    choice = chosen(
        measured([{**LARGE, "test_accuracy": None}, {**SMALL, "test_accuracy": None}]), 5, 1
    )
    assert choice.chosen is None
    assert choice.sentence == (
        "Nothing of 2 measured fits within 5 ms and 1 points; resnet18 in fp32 on onnxruntime, "
        "batch 1 is within the latency, of unknown accuracy."
    )


def test_what_cannot_be_compared_is_passed_over_and_counted(measured):
    spoilt = [
        {**SMALL, **FAST, **NOISY},
        {**SMALL, **FAST, "status": "failed"},
        {**SMALL, **FAST, "cpu": "another"},
        {**SMALL, **FAST, "gpu": "another"},
    ]
    older = {**SMALL, **FAST}
    choice = chosen(measured([*spoilt, older], [SMALL]), 5, 1)
    assert list(choice.rows["images_per_second"]) == [400]
    assert choice.passed_over == {
        "did not run": 1,
        "of another machine": 2,
        "measured again later": 2,
    }


def test_threads_are_a_configuration_of_one_machine(measured):
    choice = chosen(measured([{**SMALL, "threads": 1}, {**SMALL, **FAST, "threads": 2}]), 5, 1)
    assert choice.chosen["threads"] == 2
    assert "on onnxruntime on 2 threads, batch 1" in choice.sentence
    assert set(choice.rows["threads"]) == {1, 2}


def test_a_noisy_repetition_does_not_replace_a_good_measurement(measured):
    rows = chosen(measured([SMALL], [{**SMALL, **FAST, **NOISY}]), 5, 1).rows
    assert list(rows["images_per_second"]) == [400]


@pytest.mark.parametrize("spoilt", [NOISY, NO_P99])
def test_accuracy_is_compared_with_the_best_even_if_its_speed_cannot_be_trusted(measured, spoilt):
    best = {**LARGE, **spoilt, "test_accuracy": 0.96}
    choice = chosen(measured([best, MIDDLE, SMALL]), 5, 1)
    assert choice.chosen is None
    assert list(choice.rows["drop_points"]) == pytest.approx([3.0, 1.5, 0.0])
    note = "noisy" if "noisy" in spoilt else "no p99"
    assert choice.sentence.endswith(
        f"The most accurate, resnet50 in fp32 on onnxruntime, batch 1, cannot be chosen ({note})."
    )


def test_a_passed_over_row_of_another_dataset_is_no_obstacle(measured, tmp_path):
    runs = {}
    for dataset in ("mnist", "fashion-mnist"):
        record = make_record(make_request(dataset=dataset))
        runs[dataset] = record.run
        Store(tmp_path).finish_run(record)
    easy = {**LARGE, "run": runs["mnist"], "test_accuracy": 0.99}
    ours = {**SMALL, "run": runs["fashion-mnist"]}
    assert chosen(measured([{**easy, **NOISY}, ours]), 5, 0).chosen["drop_points"] == 0
    with pytest.raises(BenchError, match=r"of 2 datasets \(fashion-mnist, mnist\)"):
        chosen(measured([easy, ours]), 5, 0)


def test_an_export_that_was_made_again_is_no_standard(measured):
    older = {**SMALL, "file_sha256": "a", "test_accuracy": 0.99, "noisy": True}
    choice = chosen(measured([older], [{**SMALL, "file_sha256": "b"}]), 5, 0)
    assert choice.chosen["drop_points"] == 0


@pytest.mark.parametrize(
    ("unusual", "named"),
    [
        ({"scenario": "single-stream", **NO_P99}, "on onnxruntime, batch 1, single-stream"),
        ({"boundary": "copies", **NO_P99}, "on onnxruntime, batch 1, copies"),
        ({"memory_format": "channels_last"}, "on onnxruntime channels_last, batch 1"),
        ({"streams": 2}, "on onnxruntime with 2 streams, batch 1"),
    ],
)
def test_configurations_of_one_network_are_told_apart(measured, unusual, named):
    choice = chosen(measured([SMALL, {**SMALL, **unusual}]), 5, 1)
    names = {describe(row).partition(" fp32 ")[2] for _, row in choice.rows.iterrows()}
    assert names == {"on onnxruntime, batch 1", named}


def test_networks_are_chosen_by_validation_and_reported_by_test_accuracy(measured, bench):
    luck = {**SMALL, "test_accuracy": 0.96, "validation_accuracy": 0.90, "test_images": 1000}
    folder = measured([{**MIDDLE, "validation_accuracy": 0.94, "test_images": 1000}, luck])
    choice = chosen(folder, 5, 0.5)
    assert choice.chosen["model"] == "resnet34"
    assert "0.00 points of validation accuracy below" in choice.sentence
    assert list(choice.rows["drop_points"]) == pytest.approx([4.0, 0.0])
    found = bench("choose", "--results", folder, "--max-latency-ms", 5)
    assert "94.50" in found.out
    assert "validation %" in found.out


def test_without_a_validation_accuracy_of_each_they_are_chosen_by_test_accuracy(measured):
    folder = measured([MIDDLE, {**SMALL, "validation_accuracy": 0.1}])
    choice = chosen(folder, 5, 5)
    assert choice.chosen["model"] == "resnet18"
    assert choice.sentence.endswith(
        "It was chosen by test accuracy, which is therefore probably a little too high: resnet34 "
        "in fp32 on onnxruntime, batch 1 has no validation accuracy."
    )


def test_accuracy_and_latency_carry_their_uncertainty(measured, bench):
    folder = measured([{**MIDDLE, "test_images": 1000, "latency_p99_high_ms": 4.8}])
    said = chosen(folder, 5, 1).sentence
    # Wilson's interval, by hand: (p + z²/2n ± z·sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n)
    assert "test accuracy 94.50 % [92.91, 95.75] on 1,000 images" in said
    assert "ships within 5 ms: p99 is at most 4.8 ms (95 %, of this row alone)" in said
    assert "92.91-95.75" in bench("choose", "--results", folder, "--max-latency-ms", 5).out


def test_a_latency_without_a_recorded_bound_is_no_claim(measured):
    said = chosen(measured([{**MIDDLE, "latency_p99_high_ms": None}]), 5, 1).sentence
    assert "p99 5 ms in the sample, without a recorded bound" in said
    assert "95 %" not in said


def test_a_bound_of_older_processes_is_no_claim_about_a_new_one(measured):
    said = chosen(measured([{**MIDDLE, "latency_p99_scope": None}]), 5, 1).sentence
    assert "p99 of its processes is at most 5 ms if batches are independent" in said
    assert "95 %" not in said


def test_the_test_of_an_export_is_no_accuracy_of_another_runtime(measured):
    other = {**SMALL, "backend": "openvino", "file_sha256": "f" * 64, "test_accuracy": None}
    folder = measured([MIDDLE, other])
    exports = Exports(folder)
    with exports.workspace() as work:
        (work / "model.onnx").write_bytes(b"")
        values = {"sha256": "f" * 64, "bytes": 1, "test_accuracy": 0.944, "run": None}
        values |= {"file": "model.onnx", "export": "f" * 64, "status": "complete"}
        exports.publish(work, ExportRecord("f" * 64, {}, values))
    assert chosen(folder, 5, 1).chosen["model"] == "resnet34"


def test_nothing_measured_is_refused(measured):
    folder = measured([{**SMALL, "status": "failed"}])
    with pytest.raises(BenchError, match=r"nothing to choose from .*1 did not run.*export-onnx"):
        chosen(folder, 5, 1)
    with pytest.raises(BenchError, match="no study 'x' in"):
        measured_rows(Store(folder), "x")


@pytest.mark.parametrize(
    ("variants", "named"), [({"a": [0], "b": [1]}, "mine"), ({"a": [0], "b": [1], "c": [2]}, None)]
)
def test_exports_without_a_measurement_are_followed_by_the_command(tmp_path, variants, named):
    """The study's name stands for its runs if all are exported; else each is named."""
    store, exports = Store(tmp_path / "it's"), Exports(tmp_path / "it's")
    runs = [make_request(seed=seed).run_id for seed in range(3)]
    store.save_study(make_study({name: [runs[i] for i in own] for name, own in variants.items()}))
    for run, sha256 in zip(runs[:2], ("a" * 64, "b" * 64), strict=True):
        values = {"export": sha256, "sha256": sha256, "run": run, "file": "model.onnx"}
        values |= {"format": "onnx", "precision": "int8", "status": "complete"}
        with exports.workspace() as work:
            (work / "model.onnx").write_bytes(b"")
            exports.publish(work, ExportRecord(sha256, {}, values))
    with pytest.raises(BenchError) as refused:
        measured_rows(store)
    said, words = str(refused.value).split(": bench ")
    assert said == "nothing to choose from; 2 exports are there, and their measurement is missing"
    assert shlex.split(words) == [
        "throughput", *([named] if named else sorted(run[-12:-4] for run in runs[:2])),
        *("--precision", "fp32", "--precision", "int8"),
        *("--scenario", "single-stream", "--batch-size", "1", "--results", str(store.root)),
    ]  # fmt: skip


def test_an_export_with_settings_of_its_own_is_measured_as_the_file_that_it_is(tmp_path):
    """`bench throughput RUN --precision int8` would make another file, and measure that one."""
    store, exports, run = Store(tmp_path), Exports(tmp_path), make_request().run_id
    store.save_study(make_study({"a": [run]}))
    files, changes = [], ({}, {"max_accuracy_drop": 0.5}, {"target": "tensorrt"})
    for sha256, changed in zip(("a" * 64, "b" * 64, "c" * 64), changes, strict=True):
        values = {"export": sha256, "sha256": sha256, "run": run, "file": "model.onnx"}
        values |= {"format": "onnx", "precision": "int8", "status": "complete"}
        settings = Settings(precision="int8", **changed).as_dict()
        with exports.workspace() as work:
            (work / "model.onnx").write_bytes(b"")
            record = ExportRecord(sha256, {"settings": settings}, values)
            files.append(exports.file(exports.publish(work, record)))
    with pytest.raises(BenchError, match="3 exports are there, and their measurement is") as no:
        measured_rows(store)
    (words,) = str(no.value).split(": bench ")[1:]
    assert shlex.split(words)[:6] == ["throughput", run[-12:-4], *map(str, files), "--scenario"]


def test_a_file_s_export_without_a_measurement_is_followed_by_the_command(tmp_path):
    (source := tmp_path / "mine.onnx").touch()
    exports, values = Exports(tmp_path), {"export": "a" * 64, "sha256": "a" * 64}
    values |= {"file": "model.onnx", "format": "onnx", "precision": "int8", "status": "complete"}
    values |= {"model": source.name, "torch_accuracy": 0.9}
    with exports.workspace() as work:
        (work / "model.onnx").write_bytes(b"")
        record = ExportRecord("a" * 64, {"file_sha256": "f" * 64}, values, {"source": str(source)})
        exports.publish(work, record)
    with pytest.raises(BenchError, match="1 export is there, and its measurement is missing") as no:
        measured_rows(Store(tmp_path))
    assert f"bench throughput {source} {exports.file(record)} --scenario" in str(no.value)


def test_the_command_answers_and_its_exit_code_says_whether_anything_fits(measured, bench):
    folder = measured([LARGE, MIDDLE, SMALL])
    words = ("choose", "--results", folder, "--max-latency-ms")
    found = bench(*words, 5)
    assert found.code == 0
    assert "Ship resnet34 in fp32" in found.out
    assert bench(*words, 1).code == 1
    assert "Nothing of 3 measured fits" in bench(*words, 1, "--json").document["errors"][0]["error"]
    assert "max-latency-ms" in bench(*words, "x").refusal


def test_the_json_holds_the_answer(measured, bench):
    folder = measured([LARGE, MIDDLE, {**SMALL, **NO_P99}])
    words = ("choose", "--results", folder, "--json", "--max-latency-ms")
    document = bench(*words, 5).document
    assert [row["model"] for row in document["rows"] if row["chosen"]] == ["resnet34"]
    assert [text.split()[0] for text in document["remarks"]] == ["Cannot", "Ship"]
    document = bench(*words, 1).document
    assert not any(row["chosen"] for row in document["rows"])
    assert document["remarks"][-1] == document["errors"][0]["error"]


def test_files_of_equal_names_are_told_apart(measured):
    files = [{**SMALL, "run": None, "file_sha256": letter * 64} for letter in "ab"]
    slower = {**files[1], "images_per_second": 300, "ci_low": 300, "ci_high": 300}
    choice = chosen(measured([files[0], slower, MIDDLE]), 5, 5)
    assert choice.sentence.startswith("Ship resnet18 in fp32 (file aaaaaaaa) on onnxruntime")
    assert choice.rows.set_index("model")["mixed_files"].to_dict() == {
        "resnet18": True, "resnet34": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "others", "plural"),
    [("boundary", "copies", "boundaries"), ("scenario", "single-stream", "scenarios")],
)
def test_rows_of_several_boundaries_or_scenarios_are_refused_until_one_is_named(
    name, others, plural, measured, bench
):
    folder = measured([MIDDLE, {**SMALL, name: others}])
    words = ("choose", "--results", folder, "--max-latency-ms", 5, "--max-accuracy-drop", 5)
    refusal = bench(*words).refusal
    assert f"of 2 {plural} (" in refusal
    assert refusal.endswith(f"name one with --{name}")
    assert "Ship resnet18 in fp32" in bench(*words, f"--{name}", others).out
    usual = MIDDLE[name]
    assert "Ship resnet34 in fp32" in bench(*words, f"--{name}", usual).out
    refusal = bench(*words, f"--{name}", "sever").refusal
    assert f"--{name} sever: nothing was measured so; there is: " in refusal


@pytest.mark.parametrize(("name", "other"), [("boundary", "copies"), ("scenario", "server")])
def test_what_ran_nowhere_as_requested_is_refused_with_what_did(name, other, measured):
    folder = measured([MIDDLE, {**SMALL, name: other, "status": "unsupported"}])
    with pytest.raises(BenchError, match=f"--{name} {other}: .*; there is: {MIDDLE[name]}$"):
        choose(measured_rows(Store(folder)), max_latency_ms=5, max_accuracy_drop=5, **{name: other})


def test_images_per_second_of_different_measurements_are_not_compared(measured):
    """The newest measurement with a row that fits counts; an older one is of another day."""
    choice = chosen(measured([SMALL], [MIDDLE], [{**LARGE, "latency_p99_high_ms": 9.0}]), 5, 5)
    assert choice.chosen["model"] == "resnet34"
    notes = choice.rows.set_index("model")["note"].to_dict()
    assert notes == {
        "resnet18": "other measurement",
        "resnet34": "",
        "resnet50": "other measurement",
    }
    assert "the only one that fits, among 3" in choice.sentence
    assert "2 other measurement: images/s of different measurements do not" in choice.reasons[0]


def ways(**speeds):
    """Rows of one network in one measurement: precision → images/s, ratio, half their widths."""
    return [
        {
            **SMALL, "precision": precision, "images_per_second": speed,
            "ci_low": speed * (1 - width), "ci_high": speed * (1 + width), "noisy": True,
            "ratio": ratio, "ratio_low": ratio - half, "ratio_high": ratio + half,
            "difference": "faster" if half else "reference",
        }
        for precision, (speed, width, ratio, half) in speeds.items()
    ]  # fmt: skip


def test_one_network_is_compared_by_ratios_whose_intervals_hold_where_those_of_speeds_overlap(
    measured,
):
    rows = ways(fp32=(100, 0.5, 1.0, 0), fp16=(210, 0.5, 2.0, 0.1), int8=(200, 0.5, 2.5, 0.3))
    choice = chosen(measured(rows), 5, 5)
    assert choice.chosen["precision"] == "int8"
    assert "; the fastest of 3 that fit, among 3." in choice.sentence


def test_what_is_as_fast_within_the_intervals_is_named(measured):
    rows = ways(fp32=(100, 0.01, 1.0, 0), fp16=(200, 0.01, 2.0, 0.1), int8=(230, 0.01, 2.3, 0.3))
    said = chosen(measured(rows), 5, 5).sentence
    assert (
        "; as fast, within their intervals: resnet18 in int8 on onnxruntime, batch 1, "
        "resnet18 in fp16 on onnxruntime, batch 1; of 3 that fit, among 3." in said
    )


def test_different_networks_are_compared_by_the_intervals_of_images_per_second(measured):
    """Each has a ratio of 1 to itself, which compares them with nothing."""
    alone = {"ratio": 1.0, "difference": "reference", "noisy": False}
    near = {**SMALL, **alone, "ci_low": 350, "ci_high": 450}
    far = {**MIDDLE, **alone, "ci_low": 150, "ci_high": 250}
    assert "the fastest of 2 that fit" in chosen(measured([far, near]), 5, 5).sentence
    wide = {**far, "ci_high": 360}
    said = chosen(measured([wide, near]), 5, 5).sentence
    assert "Ship resnet18" in said
    assert (
        "as fast, within their intervals: resnet18 in fp32 on onnxruntime, batch 1, resnet34"
        in said
    )


def test_two_files_of_one_name_each_have_a_reference_of_their_own(measured):
    files = [
        {**row, "file_sha256": name * 64, "images_per_second": speed, "ci_low": speed,
         "ci_high": speed}
        for name, speed in (("a", 100), ("b", 300))
        for row in ways(int8=(speed, 0, 1.0, 0))
    ]  # fmt: skip
    choice = chosen(measured(files), 5, 5)
    assert choice.chosen["images_per_second"] == 300
    assert "the fastest of 2 that fit" in choice.sentence


def test_a_wide_interval_over_processes_makes_a_row_no_less_choosable_than_its_reference(measured):
    rows = ways(fp32=(100, 0.3, 1.0, 0), int8=(200, 0.3, 2.0, 0.5))
    rows[0]["noisy"] = False  # its twin's ratio is narrow
    assert chosen(measured(rows), 5, 5).chosen["precision"] == "int8"
