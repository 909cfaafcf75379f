"""The GPU protocol, as far as it can be walked without one."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import probes
import pytest
import torch
from commands import (
    FAILED,
    NOT_RUN,
    PASSED,
    Done,
    Part,
    Report,
    Runner,
    Session,
    conduct,
    judged,
    refused,
    reported,
    within,
)
from speed import as_published, large_batches, measured, quickstart
from steps import EXPORTED, STEPS, _answers, engines, exports, marked_tests, read_junit

from bench.measurement.machine import energy

PROTOCOL = Path(__file__).parents[2] / "tools" / "gpu"
ROW = {
    "precision": "fp16", "executed_precision": "fp16", "status": "complete", "error": None,
    "device": "cuda", "images_per_second": 5e3, "width": 0.01, "noisy": False, "ratio": 2.0,
    "reference": "eager fp32 contiguous", "provider": "CUDAExecutionProvider",
    "nodes_elsewhere": 0, "warnings": None, "backend": "onnxruntime",
}  # fmt: skip
ANSWERS = {
    "precision": "fp32", "status": "complete", "error": None, "images": 1000, "reference": 0.9,
    "accuracy": 0.9, "flipped": 0, "p_value": 1.0, "max_rel_diff": 1e-6,
}  # fmt: skip


def run(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", str(PROTOCOL), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def outcomes(checks):
    return [check.outcome for check in checks]


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows what happens without a GPU")
def test_without_a_gpu_it_says_so_and_claims_nothing(tmp_path):
    done = run(cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("gpu protocol: torch finds no CUDA device here (--device cuda: ")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "gpu-report" / "report.md").exists()


def test_a_step_that_breaks_is_recorded_and_the_others_go_on(tmp_path):
    def breaks(_session):
        yield judged("first", holds=True)
        raise RuntimeError("CUDA error: an illegal memory access\nwas encountered")

    def goes_on(session):
        yield judged("second", session.on_gpu, "a | b")

    session = Session("cuda", Runner(tmp_path))
    report = Report("cuda", {"gpu": "Fake 9000"})
    steps = {"breaks": Part(breaks, 0, 9), "goes on": Part(goes_on, 0, 9)}
    conduct(steps, session, report, lambda _line: None)
    document = json.loads((tmp_path / "report.json").read_text())
    found = [(c["what"], c["outcome"]) for step in document["steps"] for c in step["checks"]]
    assert found == [
        ("first", PASSED), ("the step ran to its end", FAILED), ("second", PASSED),
    ]  # fmt: skip
    page = (tmp_path / "report.md").read_text()
    assert "RuntimeError: CUDA error: an illegal memory access was encountered" in page
    assert "# GPU protocol (Fake 9000)" in page
    assert "a \\| b" in page
    assert "2 passed, 1 failed, 0 could not run" in page


def test_a_budget_ends_what_runs_and_keeps_every_figure_so_far(tmp_path):
    written = []

    def figures(session):
        yield judged("a figure", holds=True)
        written.append(json.loads((tmp_path / "report.json").read_text())["counts"])
        begun = time.monotonic()
        done = session.runner.python("-c", "import time; time.sleep(60)")
        assert time.monotonic() - begun < 30
        yield judged("it ended", done.code is None)

    session = Session("cuda", Runner(tmp_path, until=time.monotonic() + 2))
    report = Report("cuda", {})
    parts = {"figures": Part(figures, 1, 60), "more": Part(figures, 30, 60)}
    conduct(parts, session, report, lambda _line: None)
    assert written == [{PASSED: 1}]  # the report had it before the next one began
    first, second = report.steps
    assert outcomes(first.checks) == [PASSED, PASSED]
    assert outcomes(second.checks) == [NOT_RUN]
    assert "of the budget are left, it takes 30" in second.checks[0].detail


def test_a_step_has_its_share_of_a_budget_and_what_comes_after_it_has_the_rest(tmp_path):
    begun = []

    def slow(session):
        done = session.runner.python("-c", "import time; time.sleep(60)")
        yield refused("slow", done)
        yield refused("too late", session.runner.python("-c", "pass"))

    def after(session):
        begun.append(session.runner.until)
        yield judged("after", holds=session.runner.python("-c", "pass").code == 0)

    until = time.monotonic() + 600
    report = Report("cuda", {})
    conduct(
        {"slow": Part(slow, 1, 2), "after": Part(after, 1, 900)},
        Session("cuda", Runner(tmp_path, until=until)), report, lambda _line: None,
    )  # fmt: skip
    slow_step, after_step = report.steps
    assert outcomes(slow_step.checks) == [NOT_RUN, NOT_RUN]
    assert "s of the budget" in slow_step.checks[0].detail
    assert "the time of the budget is over" in slow_step.checks[1].detail
    assert outcomes(after_step.checks) == [PASSED]
    assert begun == [until]


def test_a_probe_that_is_ended_keeps_the_rows_that_it_printed(tmp_path):
    row = {"what": "a figure", "holds": True, "detail": "9 ms"}
    program = f"import json, os; print(json.dumps({row!r}), flush=True); print('{{', flush=True)"
    done = Runner(tmp_path).python("-c", f"{program}; os.abort()")
    figure, end = reported("anatomy", done)
    assert (figure.what, figure.outcome, figure.detail) == ("a figure", PASSED, "9 ms")
    assert (end.what, end.outcome) == ("anatomy: to its end", FAILED)
    assert "SIGABRT" in end.detail


def test_each_variant_of_quickstart_is_held_against_its_published_accuracy():
    def run(variant, accuracy, status="complete"):
        return {
            "variant": variant, "status": status, "test_accuracy": accuracy,
            "images_per_second": 5e3,
        }  # fmt: skip

    rows = [
        run("resnet34", 0.74), run("resnet34", 0.78), run("plain34", 0.40),
        run("plain_cnn", None, "failed"),
    ]  # fmt: skip
    published = {"resnet34": 0.75, "plain34": 0.56, "plain_cnn": 0.71}
    checks = list(as_published("quickstart", rows, published))
    assert outcomes(checks) == [PASSED, FAILED, NOT_RUN]
    assert checks[0].detail.startswith("76.00%, published 75.00%; 5,000 images/s")


def test_the_first_losses_on_one_device_are_those_on_the_other(monkeypatch):
    monkeypatch.setattr(probes, "LOSSES", {2: 1e-4, 3: 2e-2})
    rows = list(probes.losses(SimpleNamespace(device="cpu")))
    assert [row["holds"] for row in rows] == [True, True]

    theirs = [2.0] * max(probes.LOSSES)
    ours = {"cuda": [2.002, *theirs[1:]], "cpu": theirs}  # as much as TF32 would differ
    monkeypatch.setattr(probes, "_first_losses", lambda _request, device: ours[device])
    rows = probes.losses(SimpleNamespace(device="cuda"))
    assert [row["holds"] for row in rows] == [False, True]


def test_a_step_is_taken_apart_on_a_fake_of_cuda(monkeypatch):
    """Only the walk through the probe is checked: it has never run on a GPU."""
    cpu, graphs, make = torch.device("cpu"), [], probes.make_trainer

    def fake(request, _device, *, cuda_graph=False):
        graphs.append(cuda_graph)
        return make(request, cpu)

    monkeypatch.setattr(probes, "TIMED", 3)
    monkeypatch.setattr(probes, "TIMED_SECONDS", 0.01)
    monkeypatch.setattr(probes, "make_trainer", fake)
    monkeypatch.setattr(probes, "_launches", lambda _call, _device: "354 kernels")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _device: None)
    request = probes._request("resnet8", "fp32", train_images=300, batch_size=20)
    rows = list(probes.anatomy(request, torch.device("cuda")))
    assert [row["what"] for row in rows] == [
        "all of it", "the batch alone", "launches", "a CUDA graph trains alike",
        "all of it as one CUDA graph",
    ]  # fmt: skip
    assert all(row["holds"] for row in rows)
    assert "12 losses" in rows[3]["detail"]
    assert graphs == [False, False, True, True]


def test_launches_are_counted_on_the_host_and_kernels_on_the_device():
    def event(key, count=0, own=0.0, kind="CPU", range_=False):
        return SimpleNamespace(
            key=key, count=count, self_device_time_total=own,
            device_type=SimpleNamespace(name=kind), is_user_annotation=range_,
        )  # fmt: skip

    events = [
        event("aten::conv2d", 9, 4000.0), event("cudaLaunchKernelExC", 600),
        event("cuLaunchKernel", 300), event("cudaMemcpyAsync", 6),
        event("cudaStreamSynchronize", 3),
        event("a kernel", 600, 3000.0, "CUDA"), event("step", 3, 9e3, "CUDA", range_=True),
    ]  # fmt: skip
    said = probes.count_launches(events, 3, 0.006)
    assert said == (
        "300 kernels, 2.0 copies, 1.0 waits for a stream; the GPU computed 1.00 ms of 2.00 ms "
        "(profiled)"
    )


def test_power_is_that_of_the_counter(monkeypatch):
    clock, counter = iter([100.0, 100.5, 101.0, 103.0, 104.0]), iter([10.0, 14.0])
    monkeypatch.setattr(probes.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(probes, "ENERGY_SECONDS", 2.0)
    monkeypatch.setattr(energy, "_nvml", lambda _device: [(lambda: next(counter), 0.0)])
    assert probes.watts("cuda", lambda: None) == 1.0  # 4 J in 4 s
    monkeypatch.setattr(energy, "_nvml", lambda _device: [])
    assert probes.watts("cuda", lambda: None) is None


def test_the_most_valuable_steps_come_first():
    names = list(STEPS)
    assert names[:6] == [
        "What this machine can do", "Training", "The same answers as on the CPU", "Large batches",
        "Quickstart", "Anatomy of a training step",
    ]  # fmt: skip
    assert names.index("Throughput") < names.index("Tests that need CUDA")
    assert all(part.needed < part.most for part in STEPS.values())
    assert len(list(PROTOCOL.iterdir())) - (PROTOCOL / "__pycache__").is_dir() <= 5


def test_one_broken_test_file_costs_the_others_nothing(tmp_path):
    asked = []
    runner = SimpleNamespace(
        folder=tmp_path, python=lambda *words: asked.append(words) or Done(1, "", "")
    )
    list(marked_tests(SimpleNamespace(on_gpu=True, runner=runner)))
    assert "--continue-on-collection-errors" in asked[0]


def test_wheels_of_a_folder_are_on_the_path_of_every_command(tmp_path):
    (tmp_path / "lacking.py").write_text("answer = 42")
    runner = Runner(tmp_path, (tmp_path,))
    assert runner.python("-c", "import lacking; print(lacking.answer)").out == "42\n"


def test_a_report_of_a_processor_says_that_it_shows_nothing_of_a_gpu(tmp_path):
    report = Report("cpu", {"cpu": "A"})
    report.write(tmp_path)
    assert "(cpu: this says nothing about a GPU)" in (tmp_path / "report.md").read_text()


def test_commands_that_crash_or_hang_tell_how(tmp_path):
    runner = Runner(tmp_path)
    assert runner.python("-c", "import os; os.abort()").reason.startswith("ended by SIGABRT")
    hung = runner.python("-c", "import time; time.sleep(60)", timeout=1)
    assert (hung.code, hung.reason) == (None, "it did not end within 1 s")
    assert len(list((tmp_path / "logs").iterdir())) == 2


def test_the_marked_tests_are_read_one_by_one(tmp_path):
    (tmp_path / "test_x.py").write_text(
        "import pytest\n"
        "def test_a(): pass\n"
        "def test_b(): assert 1 == 2\n"
        "def test_c(): pytest.skip('no tensorrt here')\n"
    )
    words = ["-m", "pytest", "-q", "--junitxml=x.xml", "-p", "no:cacheprovider", "test_x.py"]
    subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, check=False)
    checks = list(read_junit(tmp_path / "x.xml"))
    assert outcomes(checks) == [PASSED, FAILED, NOT_RUN]
    assert "assert 1 == 2" in checks[1].detail
    assert "no tensorrt here" in checks[2].detail


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, [PASSED, PASSED, PASSED]),
        ({"executed_precision": "fp32"}, [PASSED, FAILED, PASSED]),
        ({"device": "cpu"}, [PASSED, FAILED, PASSED]),
        ({"nodes_elsewhere": 2, "warnings": "2 of 9 nodes"}, [PASSED, PASSED, FAILED]),
        ({"nodes_elsewhere": None}, [PASSED, PASSED]),
        ({"status": "unsupported", "error": "no bf16"}, [NOT_RUN]),
        ({"status": "failed", "error": "broken"}, [FAILED]),
    ],
)
def test_a_figure_counts_only_if_it_ran_as_asked(changed, expected):
    session = SimpleNamespace(device="cuda")
    checks = measured("throughput", [ROW | changed], Done(0, "", ""), session)
    assert outcomes(checks) == expected


def test_goals_stand_beside_the_figures_that_they_are_of(tmp_path):
    rows = [
        ROW | {"backend": backend, "batch_size": 256, "precision": "bf16"}
        for backend in ("eager", "compile-graph")
    ]
    session = SimpleNamespace(
        on_gpu=True, device="cuda", results=tmp_path, batch_size=256, sized=(), max_seconds=1,
        processes=1, train_images=None,
        runner=SimpleNamespace(bench=lambda *_: SimpleNamespace(rows=rows, seconds=9.0)),
    )  # fmt: skip
    figures = [check.detail for check in large_batches(session) if "images/s" in check.detail]
    assert [("goal" in figure) for figure in figures] == [False, True] * 2
    assert figures[1].endswith("(goal on an H200: 16,000 to 26,000 images/s)")
    assert figures[3].endswith("(goal on an H200: 55,000 to 90,000 images/s)")
    rows[:] = [{"status": "complete", "variant": "x"}]
    first = next(quickstart(session))
    assert first.detail == "1 of 1 runs in 9.0 s (goal on an H200: at most 12 s)"


def test_an_engine_that_tensorrt_fails_to_build_is_a_failure(tmp_path):
    built = {"run": "r", "model": "m", "error": None, "bytes": 9, "seconds": 1.0}
    rows = [
        {**built, "status": "unverified"},
        {**built, "status": "unsupported", "error": "Turing has no fp32"},
        {**built, "status": "failed", "error": "TensorRT (rtx) refuses m"},
    ]
    done = Done(1, json.dumps({"rows": rows}), "")
    runner = SimpleNamespace(folder=tmp_path, bench=lambda *_: done)
    session = Session("cuda", runner, backends=(), run="r")
    assert outcomes(engines(session)) == [PASSED, NOT_RUN, FAILED] * 6


@pytest.mark.parametrize("cut", [False, True])
def test_a_network_that_cannot_be_exported_is_a_failure(tmp_path, cut):
    """`bench export-onnx` refuses it with code 2, although nothing that it needs is missing."""
    done = Done(2, "", "bench: error: the network cannot be exported\n", cut=cut)
    runner = SimpleNamespace(folder=tmp_path, bench=lambda *_: done)
    checks = list(exports(Session("cuda", runner, backends=(), run="r")))
    assert len(checks) == len(EXPORTED)
    assert set(outcomes(checks)) == {NOT_RUN if cut else FAILED}
    assert {check.detail for check in checks} == {"the network cannot be exported"}


@pytest.mark.parametrize(
    ("code", "expected"), [(2, NOT_RUN), (1, FAILED), (-11, FAILED), (None, FAILED)]
)
def test_a_command_without_a_row_was_refused_or_is_broken(code, expected):
    done = Done(code, "", "bench: error: neither tensorrt-rtx nor tensorrt is installed\n")
    (check,) = measured("throughput", [], done, SimpleNamespace(device="cuda"))
    assert check.outcome == expected
    assert check.detail.endswith("neither tensorrt-rtx nor tensorrt is installed")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, PASSED),
        ({"max_rel_diff": 1e-3}, FAILED),  # TF32 in the place of fp32
        ({"precision": "fp16", "max_rel_diff": 1e-3}, PASSED),
        ({"precision": "fp16", "accuracy": 0.88, "p_value": 0.001}, FAILED),
        ({"precision": "fp16", "accuracy": 0.898, "p_value": 0.001}, PASSED),
        ({"status": "unsupported", "error": "no bf16"}, NOT_RUN),
        ({"status": "failed", "error": "broken"}, FAILED),
    ],
)
def test_answers_must_be_the_cpus(changed, expected):
    done = Done(0, json.dumps({"rows": [ANSWERS | changed]}), "")
    assert outcomes(_answers("eager", done)) == [expected]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.99, 1.01, PASSED),
        (1.02, 1.06, NOT_RUN),  # only its edge is within 3 %
        (1.04, 1.06, FAILED),
        (0.90, 0.95, FAILED),
        (0.95, 1.05, NOT_RUN),  # agrees with anything
        (1.04, 1.20, FAILED),  # wide, and off all the same
    ],
)
def test_instruments_agree_within_three_per_cent_or_it_cannot_be_told(low, high, expected):
    row = {"ratio": (low + high) / 2, "ratio_low": low, "ratio_high": high}
    check = within("eager", row, 0.03, "ours relative to Timer")
    assert check.outcome == expected
    assert "ours relative to Timer" in check.detail


@pytest.mark.slow
def test_the_whole_protocol_is_walked_on_the_cpu(tmp_path):
    """The code of every step, with small sizes; agreement is timed, so it is not judged here."""
    words = (
        "--device", "cpu", "--output", tmp_path / "report", "--model", "resnet20",
        "--input-size", 32, "--batch-size", 8, "--max-seconds", 0.3, "--train-images", 400,
        "--backend", "eager", "--backend", "onnxruntime", "--backend", "tensorrt",
    )  # fmt: skip
    done = run(*words, cwd=tmp_path)
    assert done.returncode in {0, 1}, done.stderr
    document = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [step["name"] for step in document["steps"]] == list(STEPS)
    found = {step["name"]: step["checks"] for step in document["steps"]}
    for name, checks in found.items():
        assert checks, name
        if not name.startswith("Agreement"):
            assert [c for c in checks if c["outcome"] == FAILED] == [], name

    def told(step, what):
        return [c for c in found[step] if what in c["what"]]

    assert all(c["outcome"] == NOT_RUN for c in found["Tests that need CUDA"])
    assert any("test_fp16_is_as_accurate" in c["what"] for c in found["Tests that need CUDA"])
    assert [c["outcome"] for c in found["Training"]] == [PASSED] * 3
    assert [c["outcome"] for c in found["ONNX exports"]] == [PASSED] * 3
    for backend in ("eager", "onnxruntime"):
        (figure,) = [c for c in told("Throughput", f"{backend} in fp32") if ":" not in c["what"]]
        assert figure["outcome"] == PASSED
        assert "images/s" in figure["detail"]
        (same,) = told(
            "The same answers as on the CPU", f"{backend} answers as the CPU does in fp"
        )[:1]
        assert same["outcome"] == PASSED
    (nodes,) = told("Throughput", "onnxruntime in fp32: every node")
    assert nodes["detail"] == "all by CPUExecutionProvider"
    (own,) = told("The same answers as on the CPU", "training's own evaluation")
    assert "0 of 1000 answers differ" in own["detail"]
    with_helper = importlib.util.find_spec("transformers") is not None
    assert [c["outcome"] for c in found["Determinism"]] == [PASSED]
    assert len(told("The same answers as on the CPU", "training losses are the CPU's")) == 2
    for step in ("Large batches", "Small batches"):
        assert "images/s" in found[step][0]["detail"]
    for step in ("Quickstart", "Workers"):
        assert "1 of 1 runs in" in found[step][0]["detail"]
    assert len(found["Time to accuracy"]) == 2
    assert [c["outcome"] for c in found["Anatomy of a training step"]] == [PASSED] * 2 + [NOT_RUN]
    assert len(found["Agreement with torch.utils.benchmark"]) == 2 + with_helper
    assert not any("Error" in c["detail"] for c in found["Agreement with torch.utils.benchmark"])
    clock, *_ = found["Clocks and energy"]
    assert clock["outcome"] == NOT_RUN


def test_wheels_are_unpacked_into_the_report(tmp_path):
    spec = importlib.util.spec_from_file_location("gpu_protocol", PROTOCOL / "__main__.py")
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "tiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny.py", "answer = 42\n")
        metadata = "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n"
        wheel.writestr("tiny-1.0.dist-info/METADATA", metadata)
        how = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr("tiny-1.0.dist-info/WHEEL", how)
        wheel.writestr("tiny-1.0.dist-info/RECORD", "")
    site = program._unpack(wheels, tmp_path / "report")
    assert (site / "tiny.py").read_text() == "answer = 42\n"
    assert site.is_relative_to(tmp_path / "report")
