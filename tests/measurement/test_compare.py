from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from calibration import GOAL, SAMPLERS, simulate

from bench.errors import BenchError
from bench.measurement.compared_speeds import load_speeds
from bench.measurement.machine.noise import tick_warning
from bench.measurement.rows import make_rows
from bench.measurement.speed_changes import compare, judge, ratio_of, undecided_remark
from bench.store.measurements import MeasurementRecord, Measurements
from bench.store.records import seal
from builders import make_row

from .conftest import TINY

RESULTS = Path(__file__).parents[2] / "results"


def row(speed: float, width: float = 0.01, **changed):
    interval = {"ci_low": speed * (1 - width), "ci_high": speed * (1 + width)}
    both = {"backend": "eager", "images_per_second": speed, "processes": 6, "difference": None}
    return make_row(**{**both, **interval, **changed})


def slower(ratio: float = 0.8, width: float = 0.02, **changed):
    """Return the row of backend b, beside a reference of 100 images/s."""
    ends = {"ratio_low": ratio * (1 - width), "ratio_high": ratio * (1 + width)}
    return row(100 * ratio, width, **{"backend": "b", "ratio": ratio, **ends, **changed})


def reference_and(ratio: float, width: float):
    return row(100, difference="reference"), slower(ratio, width)


@pytest.fixture
def side(tmp_path):
    def make(name: str, *rows):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({"schema": 1, "rows": list(rows), "errors": []}))
        return load_speeds(path)

    return make


@pytest.mark.parametrize(
    ("speed", "width", "verdict"),
    [(100, 0.01, "same"), (90, 0.01, "slower"), (90, 0.2, "undecided"), (110, 0.01, "faster")],
)
def test_a_verdict_needs_the_whole_interval_beyond_the_threshold(side, speed, width, verdict):
    alone = {"ratio": None, "ratio_low": None, "ratio_high": None}
    (change,), _ = compare(
        side("a", row(100, **alone)), side("b", row(speed, width, **alone)), 0.05
    )
    assert (change.verdict, change.basis) == (verdict, "images/s")


@pytest.mark.parametrize(
    ("doubt", "reason"),
    [
        ({"noisy": True, "processes": 5}, "fewer than six processes"),
        ({"other_processes": 0.59}, "other processes used 59 % of the processor"),
        ({"processes": 1, "ratio": None}, "images/s of fewer than six processes"),
        (
            {"noisy": True, "warnings": f"it is hot; {tick_warning(0.024)}; the load was 9"},
            "the times are multiples of 24 ms, a time slice",
        ),
    ],
)
def test_what_supports_no_verdict_gets_none_and_never_passes_for_same(side, doubt, reason):
    (change,), _ = compare(side("a", row(100)), side("b", row(50, **doubt)), 0.05)
    assert change.verdict == "not judged"
    assert change.reason.startswith(reason)


def test_a_rate_of_a_server_without_a_p99_is_not_judged(side):
    served = {"scenario": "server", "latency_bound_ms": 5.0}
    before, now = row(100, **served), row(50, noisy=True, **served)
    (change,), _ = compare(side("a", before), side("b", now), 0.05)
    assert change.verdict == "not judged"
    assert change.reason.startswith("too few queries for a p99")


@pytest.mark.parametrize(
    ("speed", "width", "verdict"),
    [(50, 0.2, "slower"), (100, 0.2, "undecided"), (100, 0.03, "same"), (200, 0.2, "faster")],
)
def test_a_wide_interval_over_six_processes_is_judged(side, speed, width, verdict):
    alone = {"ratio": None, "ratio_low": None, "ratio_high": None}
    before, now = row(100, **alone), row(speed, width, noisy=True, **alone)
    (change,), _ = compare(side("a", before), side("b", now), 0.05)
    assert (change.verdict, change.reason) == (verdict, None)


def test_what_an_undecided_comparison_could_have_found_is_found(side):
    """The slowdown that the remark names is at the edge of what is found."""
    changes, _ = judge(side("a", *reference_and(0.99, 0.1)), 0.05)
    remark = undecided_remark(changes, 0.05)
    size = float(re.search(r"measures ([\d.]+) % or more", remark)[1]) / 100
    verdicts = [
        judge(side("b", *reference_and(ratio, 0.1)), 0.05)[0][0].verdict
        for ratio in (1 - size - 0.001, 1 - size + 0.001)
    ]
    assert verdicts == ["slower", "undecided"]
    assert undecided_remark(judge(side("c", *reference_and(0.5, 0.1)), 0.05)[0], 0.05) is None


def test_warnings_of_both_sides_are_remarks(side):
    before = row(100, warnings="the load average was 6.6 before the first sample")
    now = row(100, warnings="the clock changed; two speeds")
    _, remarks = compare(side("a", before, row(50, backend="b")), side("b", now), 0.05)
    assert [remark.rpartition("/")[2] for remark in remarks[1:]] == [
        "a.json: the load average was 6.6 before the first sample.",
        "b.json: the clock changed.",
        "b.json: two speeds.",
    ]
    _, remarks = judge(side("c", row(100, difference="reference"), slower(warnings="hot")), 0.05)
    assert [remark.rpartition(": ")[2] for remark in remarks] == ["hot."]


def test_a_remark_names_the_configuration_whose_warning_it_is(side):
    rows = [row(100, warnings="hot; slow"), *(row(50, backend=b) for b in "bc")]
    rows[1]["warnings"] = "slow"
    _, remarks = compare(side("a", *rows), side("b", *rows), 0.05)
    (hot, slow) = (one.rpartition("/a.json")[2] for one in remarks if "/a.json" in one)
    assert "eager" in hot.partition(": hot.")[0]
    assert slow == " (2 of 3 configurations): slow."


def test_images_per_second_of_one_process_are_judged_on_request(side):
    one = {"processes": 1, "ratio": None}
    before, now = side("a", row(100, **one)), side("b", row(80, **one))
    assert compare(before, now, 0.05, absolute=True)[0][0].verdict == "slower"


@pytest.mark.parametrize("absolute", [True, False])
def test_the_one_block_of_one_process_is_no_interval(side, absolute):
    """Its ends are those of the block, so that any difference would seem certain."""
    one = {"width": 0.0, "processes": 1, "ratio": None, "noisy": True, "samples": 1}
    before, now = side("a", row(100, **one)), side("b", row(90, **one))
    (change,) = compare(before, now, 0.05, absolute=absolute)[0]
    assert change.verdict == "not judged"
    enough = {**one, "noisy": False, "width": 0.01}
    (change,) = compare(before, side("c", row(90, **enough)), 0.05, absolute=absolute)[0]
    assert change.verdict == "not judged"


@pytest.mark.parametrize(
    ("processes", "repeated", "verdicts"),
    [(6, True, ["slower", "same"]), (6, False, ["same"]), (1, False, ["not judged"] * 2)],
)
def test_a_machine_that_is_slower_today_changes_no_ratio_and_the_reference_says_so(
    side, processes, repeated, verdicts
):
    ort = {"backend": "onnxruntime", "ratio": 1.5, "ratio_low": 1.49, "ratio_high": 1.51}
    ort["processes"] = processes
    eager = {"difference": "reference", "processes": processes}

    def measured(name, speed):
        ends = {"repeat_low": speed * 0.98, "repeat_high": speed * 1.02} if repeated else {}
        return side(name, row(speed, **eager, **ends), row(1.5 * speed, **ort))

    changes, remarks = compare(measured("a", 100), measured("b", 80), 0.05)
    assert [change.verdict for change in changes] == verdicts
    assert changes[-1].basis == "ratio"
    printed = [f"{change.ratio:.1f}" for change in changes] + remarks
    assert any("0.8" in one for one in printed)  # the reference's change, judged or not


def drawn(seed: int):
    """One measurement of two configurations on a machine whose speed drifts over a minute."""
    trials = simulate(SAMPLERS["drift over 60 s"], seed)
    return make_rows(trials, measurement="", cpu="A", goal=GOAL, ceiling=None)


def test_a_machine_that_drifts_between_two_measurements_raises_no_alarm(side):
    """None of 80 pairs differs; images/s of the reference would be alarms in 14 of them."""
    verdicts = [
        change.verdict
        for seed in range(0, 160, 2)
        for change in compare(side("a", *drawn(seed)), side("b", *drawn(seed + 1)), 0.05)[0]
    ]
    assert verdicts.count("same") >= 75
    assert not {"slower", "faster"} & set(verdicts)


def test_what_failed_or_has_no_ratio_does_not_pass(side):
    broken = {"backend": "c", "status": "failed", "error": "SIGABRT", "ci_low": None}
    sliced = {"backend": "d", "ratio": None, "noisy": True, "warnings": tick_warning(0.024)}
    pair, bad = reference_and(1.0, 0.001), [row(100, **broken), row(100, **sliced)]
    now = side("b", *pair, *bad)
    reasons = ["failed: SIGABRT", tick_warning(0.024).partition(":")[0]]
    judged = judge(now, 0.05)[0]
    assert judged[0].verdict == "same"
    assert {change.verdict for change in judged[1:]} == {"not judged"}
    assert sorted(change.reason for change in judged[1:]) == sorted(reasons)
    third = row(100, backend="c", ratio=None)
    started = {"phase": "load", "status": "failed", "error": "no memory"}  # a cold start's row
    for before in (side("a", *pair, third), side("d", *pair, bad[0], {**pair[0], **started})):
        assert [c.reason for c in compare(before, now, 0.05)[0] if c.reason] == ["failed: SIGABRT"]
    missing = side("e", *pair, third | {"status": "unsupported", "error": "none", "ci_low": None})
    change = compare(side("f", *pair, third), missing, 0.05)[0][-1]
    assert (change.verdict, change.reason) == ("not judged", "unsupported: none")
    assert all(change.reason is None for change in judge(missing, 0.05)[0])


def test_one_measurement_is_judged_against_the_reference_beside_it(side):
    (change,), _ = judge(side("a", *reference_and(0.8, 0.02)), 0.05)
    assert change.verdict == "slower"
    with pytest.raises(BenchError, match="holds nothing beside a reference"):
        judge(side("c", row(100, difference="reference")), 0.05)


def test_files_of_one_run_and_precision_are_told_apart(side):
    both = {"backend": "onnxruntime", "run": "r-s0-12", "precision": "int8"}
    first = row(100, file_sha256="a" * 64, difference="reference", **both)
    second = slower(file_sha256="b" * 64, **both)
    failed = slower(file_sha256="c" * 64, status="failed", error="it broke", **both)
    for order in ((first, second, failed), (failed, second, first)):
        changes, _ = judge(side("a", *order), 0.05)
        found = {change.configuration.partition(" / file ")[2][:8]: change for change in changes}
        assert {sha: one.verdict for sha, one in found.items()} == {
            "b" * 8: "slower", "c" * 8: "not judged",
        }  # fmt: skip
    changes, _ = compare(side("a", first, second), side("b", first, second), 0.05)
    assert [one.configuration[-8:] for one in changes] == ["b" * 8]
    (alone,) = side("c", second).speeds
    assert "file" not in alone


@pytest.mark.parametrize("few", [{"ratio_processes": 5}, {"processes": 1}])
def test_a_ratio_over_few_processes_is_not_judged(side, few):
    reference = row(100, difference="reference", ratio=1.0)
    (change,) = judge(side("a", reference, slower(**few)), 0.05)[0]
    assert (change.verdict, "fewer than six" in change.reason) == ("not judged", True)
    before, now = side("a", reference, slower()), side("b", reference, slower(0.5, **few))
    assert compare(before, now, 0.05)[0][-1].verdict == "not judged"


def test_without_a_ratio_a_doubt_is_the_reason(side):
    """Times that are multiples of a time slice have no ratio."""
    alone = {"ratio": None, "reference": None, "warnings": tick_warning(0.024)}
    with pytest.raises(BenchError, match="reference: the times are multiples of 24 ms"):
        judge(side("a", row(100, noisy=True, **alone)), 0.05)


def written(path, *rows):
    path.write_text(json.dumps({"schema": 1, "rows": list(rows), "errors": []}))
    return path


@pytest.mark.parametrize(
    ("ratio", "width", "changed", "code", "words"),
    [
        (1.0, 0.02, {}, 0, ["same"]),
        (
            0.8,
            0.3,
            {"noisy": True},
            3,
            ["undecided", "if it measures 26.9 % or more", "--processes 24"],
        ),
        (0.8, 0.02, {"processes": 5}, 3, ["not judged: fewer than six processes"]),
        (0.8, 0.02, {"other_processes": 0.5}, 3, ["not judged: other processes used 50 %"]),
        (0.6, 0.3, {"noisy": True, "warnings": "it was hot"}, 1, ["slower", "it was hot"]),
        (1.2, 0.02, {}, 0, ["faster"]),
    ],
)
def test_exit_code_and_wording_of_the_command(bench, tmp_path, ratio, width, changed, code, words):
    rows = row(100, difference="reference"), slower(ratio, width, **changed)
    file = written(tmp_path / "a.json", *rows)
    for form in ("table", "markdown"):
        done = bench("compare", file, "--format", form)
        assert done.code == code
        assert all(word in done.out for word in words), done.out
    document = bench("compare", file, "--json")
    assert document.code == code
    assert document.document["rows"][0]["verdict"] == words[0].partition(":")[0]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_that_powershell_wrote_is_read(tmp_path, encoding):
    file = written(tmp_path / "a.json", row(100, difference="reference"))
    before = load_speeds(file)
    file.write_text(file.read_text(), encoding=encoding)
    assert load_speeds(file) == before


def test_of_a_results_folder_the_latest_measurement_is_judged(bench, tmp_path):
    store = Measurements(tmp_path / "results")
    for name, ratio in {"20260101": 0.8, "20260102": 1.0}.items():
        store.publish(MeasurementRecord(name, {}, list(reference_and(ratio, 0.01))), [])
    older = store.folder("20260101")

    def verdicts(*folders):
        done = bench("compare", *folders, "--threshold", 0.03, "--json")
        rows = done.document["rows"]
        return done.code, [(row["verdict"], round(row["ratio"], 3)) for row in rows]

    assert verdicts(tmp_path / "results") == (0, [("same", 1.0)])
    assert verdicts(older) == (1, [("slower", 0.8)])
    assert verdicts(older, tmp_path / "results") == (0, [("faster", 1.25)])
    refusal = bench("compare", tmp_path).refusal
    assert "no measurement and no complete training run" in refusal


def test_absolute_is_refused_where_it_has_no_effect(bench, tmp_path):
    one = written(tmp_path / "a.json", *reference_and(0.8, 0.02))
    expected = "--absolute goes with two measurements; leave it out"
    assert bench("compare", one, "--absolute").refusal == expected
    python = ("--python", sys.executable) * 2
    assert bench("compare", *python, "--absolute", "--", TINY).refusal == expected


@pytest.mark.parametrize("threshold", [-0.01, 1, 5])
def test_a_threshold_is_a_share(bench, tmp_path, threshold):
    file = written(tmp_path / "a.json", *reference_and(1.0, 0.01))
    refusal = bench("compare", file, "--threshold", threshold).refusal
    assert refusal == f"--threshold {threshold:g}: it is relative, 0 … 1, such as 0.05"


def test_remarks_are_in_the_json_and_only_what_is_undecided_gets_advice(bench, tmp_path):
    wide = slower(0.9, 0.3, noisy=True, warnings="it was hot")
    file = written(tmp_path / "a.json", row(100, difference="reference"), wide)
    hot, undecided = bench("compare", file, "--json").document["remarks"]
    assert re.search(r"a\.json \(resnet18 / b / .*\): it was hot\.$", hot)
    assert undecided.startswith("Undecided: ")
    file = written(tmp_path / "b.json", *reference_and(0.8, 0.02))
    assert bench("compare", file, "--json").document["remarks"] == []


@pytest.mark.slow
@pytest.mark.usefixtures("third_party")
def test_a_backend_that_sleeps_a_tenth_longer_is_found_and_its_twin_is_not(
    bench_process, bench, tmp_path
):
    """Measured in six processes; sleeping needs no processor, so it may be busy."""
    backends = [word for name in ("sleeper", "twin", "slower") for word in ("--backend", name)]
    done = bench_process(
        "throughput", TINY, *backends, "--reference", "sleeper", "--processes", 6,
        "--batch-size", 1, "--input-size", 16, "--max-seconds", 6, "--json", "--quiet",
    )  # fmt: skip
    assert done.code == 0, done.err
    plain, twin, late = ({**found, "other_processes": 0.0} for found in done.document["rows"])
    assert late["backend"] == "slower"
    command = ("compare", "--threshold", 0.02)
    found = bench(*command, written(tmp_path / "late.json", plain, late))
    assert found.code == 1, found.out
    found = bench(*command, written(tmp_path / "twin.json", plain, twin))
    assert found.code in {0, 3}, found.out


def recorded(result, number):
    """Return one configuration's row in a repetition, with what `bench compare` judges it by."""
    return make_row(backend=result["configuration"].split()[1], **result["rows"][number])


@pytest.fixture
def repetitions():
    """The rows of each repetition of one command: eager, the reference, and ONNX Runtime."""
    document = json.loads((RESULTS / "throughput" / "repetitions.json").read_text())
    eager, ort = document["results"]
    return [(recorded(eager, n), recorded(ort, n)) for n in range(ort["intervals"])]


@pytest.mark.parametrize("threshold", [0.02, 0.05])
def test_repetitions_of_one_command_raise_no_alarm_and_are_judged(side, repetitions, threshold):
    """All ordered pairs of identical repetitions: eager by images/s, ONNX Runtime by its ratio."""
    sides = [side(str(number), *rows) for number, rows in enumerate(repetitions)]
    pairs = list(itertools.permutations(sides, 2))
    changes = [change for before, now in pairs for change in compare(before, now, threshold)[0]]
    known = sum(bool(eager["repeat_low"]) for eager, _ in repetitions)
    for basis, count in (("images/s", known * (known - 1)), ("ratio", len(pairs))):
        found = [change for change in changes if change.basis == basis]
        assert len(found) == count
        alarms = sum(change.verdict in {"slower", "faster"} for change in found)
        assert alarms <= 0.01 * count
        reasons = {change.reason for change in found} - {None}
        assert all("other processes" in reason for reason in reasons)


@pytest.mark.parametrize(("threshold", "judged"), [(0.02, 0), (0.05, 380)])
@pytest.mark.parametrize("result", [0, 1])
def test_images_per_second_of_single_measurements_raise_no_alarm(
    side, repetitions, result, threshold, judged
):
    """Each repetition as if it were alone in its folder, and had no reference."""
    alone = {"ratio": None, "repeat_low": None, "repeat_high": None}
    sides = [side(str(n), {**rows[result], **alone}) for n, rows in enumerate(repetitions)]
    found = [compare(*pair, threshold)[0][0] for pair in itertools.permutations(sides, 2)]
    assert sum(change.verdict != "not judged" for change in found) == judged
    assert sum(change.verdict in {"slower", "faster"} for change in found) <= 0.01 * len(found)
    if not judged:
        assert all("below 5 %" in change.reason for change in found)
    (change,) = compare(*sides[:2], threshold, absolute=True)[0]
    assert change.verdict != "not judged"


@pytest.mark.parametrize("threshold", [0.03, 0.05])
def test_a_reference_that_cannot_be_judged_leaves_the_ratios_to_decide(bench, tmp_path, threshold):
    files = [written(tmp_path / f"{n}.json", *reference_and(1.0, 0.01)) for n in "ab"]
    done = bench("compare", *files, "--threshold", threshold, "--json")
    assert done.code == 0
    assert [row["verdict"] for row in done.document["rows"]] == ["same"]
    (remark,) = done.document["remarks"]
    assert "the reference: images/s changed by the factor 1 [" in remark
    assert "not judged: images/s of single measurements" in remark


def test_beside_ratios_only_the_reference_is_left_to_a_remark(side):
    """Backend c has no ratio: its images/s are not judged, and that does not pass for same."""
    rows = (*reference_and(1.0, 0.001), row(100, backend="c", ratio=None))
    changes, _ = compare(side("a", *rows), side("b", *rows), 0.02)
    assert [(change.basis, change.verdict) for change in changes] == [
        ("ratio", "same"),
        ("images/s", "not judged"),
    ]


def test_a_slowdown_by_a_fifth_is_found_in_the_same_repetitions(side, repetitions):
    figures = ("images_per_second", "ci_low", "ci_high", "ratio", "ratio_low", "ratio_high")
    before = [side(f"a{number}", *rows) for number, rows in enumerate(repetitions)]
    now = [
        side(f"b{number}", eager, {**ort, **{name: ort[name] * 0.8 for name in figures}})
        for number, (eager, ort) in enumerate(repetitions)
    ]
    verdicts = [
        compare(before[i], now[j], 0.05)[0][-1].verdict
        for i, j in itertools.permutations(range(len(now)), 2)
    ]
    assert verdicts.count("slower") >= 0.9 * len(verdicts)


def test_other_machines_are_compared_by_their_own_reference(side):
    ort = {"backend": "onnxruntime", "ratio": 1.5, "ratio_low": 1.49, "ratio_high": 1.51}
    here = side("a", row(100), row(150, **ort))
    there = side("b", row(200, cpu="B"), row(300, cpu="B", **ort))
    changes, remarks = compare(here, there, 0.05)
    assert [c.verdict for c in changes] == ["same", "same"]
    assert [c.ratio for c in changes] == [1.0, 1.0]
    assert "Different machines" in remarks[0]


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ({"cpu": "A"}, {"cpu": "B"}),
        ({"cpu": "A (avx2)"}, {"cpu": "A (avx2 avx512f)"}),
        ({"device": "cuda", "gpu": "L4"}, {"device": "cuda", "gpu": "H100"}),
    ],
)
def test_other_machines_without_a_reference_are_refused(side, here, there):
    bare = {"ratio": None, "ratio_low": None, "ratio_high": None}
    with pytest.raises(BenchError, match="without a reference"):
        compare(side("a", row(100, **bare, **here)), side("b", row(100, **bare, **there)), 0.05)


def test_other_boundaries_are_refused(side):
    with pytest.raises(BenchError, match="boundaries differ"):
        compare(side("a", row(100)), side("b", row(100, boundary="copies")), 0.05)


def test_the_interval_of_a_ratio_comes_from_both_intervals():
    ratio, low, high = ratio_of((2.0, 1.9, 2.1), (1.0, 0.95, 1.05))
    assert ratio == 2.0
    assert 1.8 < low < 1.95
    assert 2.05 < high < 2.2


@pytest.mark.parametrize("with_data", [True, False])
def test_pytest_benchmarks_json(tmp_path, with_data):
    def write(name: str, seconds: float) -> str:
        data = [seconds * (1 + 0.001 * (i % 7)) for i in range(30)]
        stats = {"median": seconds, "iqr": seconds * 0.01, "rounds": 30}
        if with_data:
            stats["data"] = data
        machine = {"cpu": {"brand_raw": "A"}}
        document = {"machine_info": machine, "benchmarks": [{"fullname": "t::x", "stats": stats}]}
        path = tmp_path / name
        path.write_text(json.dumps(document))
        return str(path)

    before, now = load_speeds(write("a.json", 1.0)), load_speeds(write("b.json", 1.2))
    (change,), _ = compare(before, now, 0.05, absolute=True)
    assert change.verdict == "slower"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "no JSON"),
        ("[]", "give a measurement"),
        (None, "cannot read"),
        ('{"rows": [1]}', "is no JSON of"),
        ('{"rows": []}', "no complete row"),
        ('{"benchmarks": [{}]}', "is no JSON of"),
        ('{"benchmarks": []}', "holds no benchmark"),
    ],
)
def test_what_is_no_measurement_is_refused_in_one_line(tmp_path, content, expected):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BenchError, match=expected):
        load_speeds(path)


def test_training_runs_are_compared_by_their_epochs(trained, tmp_path):
    """The tiny runs have one epoch each: two seeds together, and no claim from so few."""
    side = load_speeds(trained)
    (plain, residual) = sorted(side.speeds)
    assert plain.startswith("training / resnet8 / ")
    assert "shortcut" in plain
    assert "fashion-mnist-mini" in residual
    changes, _ = compare(side, side, 0.05)
    assert [c.verdict for c in changes] == ["not judged", "not judged"]
    run = next((trained / "runs").iterdir())
    (change,), remarks = compare(load_speeds(run), side, 0.05)
    assert change.ratio > 0
    assert remarks == [f"1 configuration(s) only in {trained}."]
    with pytest.raises(BenchError, match="no measurement and no complete training run"):
        load_speeds(tmp_path)


def test_runs_trained_side_by_side_are_not_compared_with_those_trained_alone(trained, results):
    """Two at a time share memory and caches, so each of them is slower."""
    for path in sorted(results.glob("runs/*/run.json")):
        record = json.loads(path.read_bytes())
        assert record["environment"]["workers"] == 1
        record["environment"]["workers"] = 2
        del record["checksum"], record["format_version"]
        path.write_bytes(seal(record))
    assert all(" / 2 runs at a time" in name for name in load_speeds(results).speeds)
    with pytest.raises(BenchError, match="no configuration in common"):
        compare(load_speeds(results), load_speeds(trained), 0.05)


def test_a_measurement_beside_runs_makes_no_other_machine_of_theirs(trained, results):
    """A measurement records the instruction sets with the processor; a run does not."""
    Measurements(results).publish(MeasurementRecord("m", {}, [row(100, cpu="EPYC (avx avx2)")]), [])
    for pair in ((results, trained), (trained, results)):
        changes, remarks = compare(*map(load_speeds, pair), 0.05)
        assert [c.ratio for c in changes] == [1.0, 1.0]
        assert remarks == [f"1 configuration(s) only in {results}."]


def test_only_what_ran_on_different_machines_is_left_out(side):
    bare = {"ratio": None, "ratio_low": None, "ratio_high": None}
    here = side("a", row(100, **bare), row(150, backend="b", **bare))
    there = side("b", row(100, **bare), row(300, backend="b", cpu="B", **bare))
    (change,), (remark,) = compare(here, there, 0.05)
    assert (change.verdict, change.basis) == ("same", "images/s")
    assert remark == "Different machines (A, cpu; B, cpu): 1 configuration(s) are not compared."


def test_training_that_became_slower_is_told():
    import pandas as pd

    from bench.measurement import compared_speeds

    def epochs(speed):
        rates = [speed * (1 + 0.002 * (i % 5)) for i in range(12)]
        return pd.DataFrame({"images_per_second": rates})

    before, now = (
        compared_speeds.ComparedSpeeds(n, {"training": compared_speeds._training_speed(epochs(s))})
        for n, s in (("a", 400.0), ("b", 300.0))
    )
    (change,), _ = compare(before, now, 0.05, absolute=True)
    assert change.verdict == "slower"
    assert change.ratio == pytest.approx(0.75, rel=0.01)


def test_what_pytest_benchmark_really_writes_is_read(tmp_path):
    (tmp_path / "test_b.py").write_text(
        "import time\n"
        "def test_sleep(benchmark):\n"
        "    benchmark.pedantic(time.sleep, (0.001,), rounds=12)\n"
    )
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--benchmark-json=x.json"]
    # In a worker of pytest-xdist, pytest-benchmark would measure nothing.
    alone = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    subprocess.run(
        [sys.executable, *words], cwd=tmp_path, env=alone, check=True, capture_output=True
    )
    side = load_speeds(tmp_path / "x.json")
    ((name, figure),) = side.speeds.items()
    assert name == "test_b.py::test_sleep"
    assert figure.low <= figure.value <= figure.high <= 1000
    assert figure.doubt is None
    assert figure.machine != "unknown"
