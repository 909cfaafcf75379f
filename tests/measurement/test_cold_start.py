"""Cold starts: what each phase contains, in fresh processes, and what is not measured."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

import bench
from bench.measurement.configurations import Request, expand
from bench.measurement.measured_network import find_target
from bench.measurement.timing import cold_process
from bench.measurement.timing.cold_process import PHASES
from bench.measurement.timing.cold_start import measure_cold_starts
from bench.report.tables.cold_start import cold_start_lines, cold_start_text

WORDS = {"max_seconds": 0.3, "processes": 1, "input_size": 16, "threads": 1, "device": "cpu"}


@pytest.mark.usefixtures("third_party")
def test_each_phase_has_its_time_and_memory_in_a_table_of_its_own(tmp_path):
    frame = bench.measure(
        "resnet8", backends=("eager", "onnxruntime", "fine"), batch_sizes=(2,), cold_start=True,
        boundaries=("compute", "copies"), results=tmp_path, **WORDS,
    )  # fmt: skip
    cold = bench.load_results(tmp_path, "cold_starts")
    assert set(cold["measurement"]) == {frame["measurement"][0]}
    ran = cold[cold["status"] == "complete"]  # once for both boundaries
    assert ran["backend"].tolist() == ["eager"] * 3 + ["onnxruntime"] * 3
    assert ran["phase"].tolist() == ["import", "load", "first inference"] * 2
    assert (ran["seconds"] > 0).all()
    assert (ran["memory_mib"] > 0).all()
    memory = ran.groupby("backend", observed=True)["memory_mib"]
    # A process of ONNX Runtime holds no torch.
    assert memory.last()["onnxruntime"] < memory.first()["eager"]
    assert ran["seconds_low"].isna().all()  # one process claims nothing
    (refused,) = cold[cold["status"] != "complete"].to_dict("records")
    assert (refused["backend"], refused["status"]) == ("fine", "unsupported")
    assert bench.load_results(tmp_path, "throughput").shape == frame.shape


def test_each_phase_has_the_memory_and_the_seconds_until_its_end(monkeypatch, capsys, clock):
    used = SimpleNamespace(rss=0)

    def program(job):
        for number, phase in enumerate(job["phases"], 1):
            used.rss += 100 * number
            clock.now += number
            yield phase

    monkeypatch.setattr("psutil.Process", lambda: SimpleNamespace(memory_info=lambda: used))
    monkeypatch.setattr(cold_process, "time", SimpleNamespace(perf_counter=clock))
    monkeypatch.setitem(cold_process.PROGRAMS, "fake", program)
    job = json.dumps({"backend": "fake", "phases": PHASES})
    monkeypatch.setattr("sys.stdin", io.StringIO(job))
    cold_process.main()
    assert [tuple(one.values()) for one in json.loads(capsys.readouterr().out)] == [
        ("import", 1, 100), ("load", 2, 300), ("first inference", 3, 600),
    ]  # fmt: skip


def test_a_run_is_loaded_with_its_own_weights(trained, tmp_path):
    run = next(path.name for path in sorted((trained / "runs").iterdir()))
    target = find_target(run, results=trained)
    made = expand(Request(backends=("eager",), batch_sizes=(1,)), [target], device="cpu", threads=1)
    rows = measure_cold_starts(made, tmp_path, processes=1)
    assert [row["error"] for row in rows] == [None] * 3


def test_a_users_own_bench_py_is_not_run(tmp_path, monkeypatch):
    (tmp_path / "bench.py").write_text("raise SystemExit('the user's own')")
    monkeypatch.chdir(tmp_path)
    target = find_target("resnet8", input_size=16)
    request = Request(backends=("eager",), batch_sizes=(1,))
    rows = measure_cold_starts(
        expand(request, [target], device="cpu", threads=1), tmp_path, processes=1
    )
    assert [row["error"] for row in rows] == [None] * len(rows)


def test_a_process_that_fails_or_hangs_is_a_row_with_the_reason(tmp_path):
    target = find_target("resnet8", input_size=16)
    request = Request(backends=("eager",), batch_sizes=(1,))
    made = expand(request, [target], device="cpu", threads=1)
    (row,) = measure_cold_starts(made, tmp_path, processes=1, timeout=0.01)
    assert (row["status"], row["error"]) == ("failed", "it did not end within 0.01 s (--timeout)")
    assert cold_start_lines([row]) == ["No cold start: it did not end within 0.01 s (--timeout)"]


def test_a_process_that_a_signal_ended_is_a_row_with_its_name(tmp_path, monkeypatch):
    (tmp_path / "aborting.py").write_text(
        "import os, sys\nfrom torch import nn\n"
        "class Aborting(nn.Flatten):\n"
        "    def forward(self, x):\n"
        "        return super().forward(x) if 'pytest' in sys.modules else os.abort()\n"
        "def net(num_classes, in_channels):\n"
        "    return nn.Sequential(Aborting(), nn.Linear(3 * 8 * 8, num_classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    target = find_target("aborting:net", input_size=8)
    request = Request(backends=("eager",), batch_sizes=(1,))
    made = expand(request, [target], device="cpu", threads=1)
    (row,) = measure_cold_starts(made, tmp_path, processes=1)
    assert row["error"].startswith("its process was ended by SIGABRT (a fault in native code")


INTERPRETER = """#!{python} -IS
import json, os, sys
from pathlib import Path
log = Path(__file__).with_name("log")
log.open("a").write("x")
number = len(log.read_text())
if number in {crashing}:
    os.abort()
if number in {silent}:
    sys.exit()
print(json.dumps([{{"phase": p, "seconds": number, "bytes": 2**20}} for p in {phases}]))
"""


@pytest.fixture
def rows_of_processes(tmp_path, monkeypatch):
    """Measure one configuration whose processes crash, or end silently, by their numbers."""

    def measure(processes, *, crashing=(), silent=()):
        program = tmp_path / "interpreter"
        events = {"crashing": crashing, "silent": silent, "phases": PHASES}
        program.write_text(INTERPRETER.format(python=sys.executable, **events))
        program.chmod(0o755)
        target = find_target("resnet8", input_size=16)
        request = Request(backends=("eager",), batch_sizes=(1,))
        made = expand(request, [target], device="cpu", threads=1)
        monkeypatch.setattr(sys, "executable", str(program))
        return measure_cold_starts(made, tmp_path, processes=processes)

    return measure


def test_the_first_process_only_fills_the_page_cache(rows_of_processes):
    rows = rows_of_processes(2)
    assert [row["seconds"] for row in rows] == [pytest.approx(6**0.5)] * 3  # of 2 and 3
    assert not any(row.get("warnings") for row in rows)


@pytest.mark.parametrize(
    ("failing", "reason"),
    [
        ({"crashing": [4]}, "its process was ended by SIGABRT"),
        ({"silent": [4]}, "its process ended before it had measured"),
        ({"crashing": [1]}, "its process was ended by SIGABRT"),  # the second fills the cache
    ],
)
def test_a_process_that_fails_is_left_out_and_the_row_says_so(rows_of_processes, failing, reason):
    rows = rows_of_processes(10, **failing)
    assert [(row["status"], row["processes"], row["error"]) for row in rows] == [
        ("complete", 9, None)
    ] * 3
    counted, warning = cold_start_lines(rows)
    assert "in 9 fresh processes each" in counted
    assert warning.startswith(f"eager fp32: 9 of 10 processes complete: {reason}")
    assert {row["warnings"] for row in rows} == {warning.removesuffix(".")}


def test_the_second_failure_gives_the_configuration_up(rows_of_processes, tmp_path):
    (row,) = rows_of_processes(10, crashing=[3], silent=[5])
    assert row["status"] == "failed"
    assert row["error"] == "its process ended before it had measured"
    assert len((tmp_path / "log").read_text()) == 5


def test_the_process_imports_nothing_but_the_runtime():
    program = (
        "import sys; import bench.measurement.timing.cold_process;"
        "print(sorted({'torch', 'numpy', 'pandas', 'onnxruntime'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_table_says_that_the_page_cache_was_warm():
    row = {
        "model": "resnet8", "options": "", "run": None, "backend": "eager", "precision": "fp32",
        "memory_format": "channels_last", "batch_size": 1, "phase": "load", "seconds": 0.5,
        "seconds_low": 0.4, "seconds_high": 0.6, "memory_mib": 300.0, "memory_mib_low": 290.0,
        "memory_mib_high": 310.0, "processes": 10, "status": "complete", "error": None,
    }  # fmt: skip
    (line,) = cold_start_lines([row])
    assert "10 fresh processes each, page cache warm" in line
    (_, _, shown) = cold_start_text([row]).to_markdown()
    assert "0.5 [0.4, 0.6]" in shown
    assert "300 [290, 310]" in shown
