from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.measurement.compared_speeds import load_speeds
from bench.measurement.speed_changes import compare, judge, ratio_of
from builders import make_row

RESULTS = Path(__file__).parents[2] / "results"


def row(speed: float, width: float = 0.01, **changed):
    interval = {"ci_low": speed * (1 - width), "ci_high": speed * (1 + width)}
    both = {"backend": "eager", "images_per_second": speed, "processes": 6, "difference": None}
    return make_row(**{**both, **interval, **changed})


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
        ({"noisy": True}, "the interval is too wide"),
        ({"other_processes": 0.59}, "other processes used 59 % of the processor"),
        ({"processes": 1, "ratio": None}, "images/s of fewer than six processes"),
    ],
)
def test_what_supports_no_verdict_gets_none_and_never_passes_for_same(side, doubt, reason):
    (change,), _ = compare(side("a", row(100)), side("b", row(50, **doubt)), 0.05)
    assert change.verdict == "not judged"
    assert change.reason.startswith(reason)


def test_images_per_second_of_one_process_are_judged_on_request(side):
    one = {"processes": 1, "ratio": None}
    before, now = side("a", row(100, **one)), side("b", row(80, **one))
    assert compare(before, now, 0.05, absolute=True)[0][0].verdict == "slower"


def test_a_machine_that_is_slower_today_changes_no_ratio_and_the_reference_says_so(side):
    ort = {"backend": "onnxruntime", "ratio": 1.5, "ratio_low": 1.49, "ratio_high": 1.51}
    eager = {"difference": "reference", "processes": 1}
    before = side("a", row(100, **eager), row(150, **ort))
    now = side("b", row(80, **eager), row(120, **ort))
    reference, other = compare(before, now, 0.05)[0]
    assert (other.verdict, other.basis) == ("same", "ratio")
    assert reference.verdict == "not judged"
    assert reference.ratio == pytest.approx(0.8)  # printed nevertheless


def test_one_measurement_is_judged_against_the_reference_beside_it(side):
    slow = {"backend": "b", "ratio": 0.8, "ratio_low": 0.78, "ratio_high": 0.82}
    measured = side("a", row(100, difference="reference"), row(80, **slow))
    (change,), _ = judge(measured, 0.05)
    assert change.verdict == "slower"
    (change,), _ = judge(side("b", row(80, **slow, processes=1)), 0.05)
    assert (change.verdict, "fewer than six" in change.reason) == ("not judged", True)
    with pytest.raises(BenchError, match="holds nothing beside a reference"):
        judge(side("c", row(100, difference="reference")), 0.05)


def test_repetitions_of_one_command_raise_no_alarm(side):
    """All ordered pairs of identical repetitions, replayed at a threshold of 5 %."""
    document = json.loads((RESULTS / "throughput" / "repetitions.json").read_text())
    (compared,) = (r for r in document["results"] if r.get("ratios"))
    sides = []
    for number, (ratio, low, high) in enumerate(compared["ratios"]):
        found = {"ratio": ratio, "ratio_low": low, "ratio_high": high}
        speed = compared["images_per_second"][number]
        sides.append(side(str(number), row(speed, backend="onnxruntime", **found)))
    verdicts = [
        compare(before, now, 0.05)[0][0].verdict for before, now in itertools.permutations(sides, 2)
    ]
    alarms = sum(verdict in {"slower", "faster"} for verdict in verdicts)
    assert len(verdicts) == len(sides) * (len(sides) - 1)
    assert alarms <= 0.01 * len(verdicts)


def test_other_machines_are_compared_by_their_own_reference(side):
    ort = {"backend": "onnxruntime", "ratio": 1.5, "ratio_low": 1.49, "ratio_high": 1.51}
    here = side("a", row(100), row(150, **ort))
    there = side("b", row(200, cpu="B"), row(300, cpu="B", **ort))
    changes, remarks = compare(here, there, 0.05)
    assert [c.verdict for c in changes] == ["same", "same"]
    assert [c.ratio for c in changes] == [1.0, 1.0]
    assert "Different machines" in remarks[0]


def test_other_machines_without_a_reference_are_refused(side):
    bare = {"ratio": None, "ratio_low": None, "ratio_high": None}
    with pytest.raises(BenchError, match="without a reference"):
        compare(side("a", row(100, **bare)), side("b", row(100, cpu="B", **bare)), 0.05)


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


def test_training_that_became_slower_is_told():
    import pandas as pd

    from bench.measurement import compared_speeds

    def epochs(speed):
        rates = [speed * (1 + 0.002 * (i % 5)) for i in range(12)]
        return pd.DataFrame({"images_per_second": rates})

    before, now = (
        compared_speeds.ComparedSpeeds(
            n, "A", {"training": compared_speeds._training_speed(epochs(s))}
        )
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
    assert side.machine != "unknown"
