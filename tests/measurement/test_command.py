"""The commands: exit codes, streams, threads."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from bench.cli import throughput
from bench.store.measurements import MeasurementRecord
from builders import make_row

from .conftest import TINY

QUICK = ("--max-seconds", 0.3, "--processes", 1, "--input-size", 16, "--threads", 1, "--quiet")


@pytest.mark.usefixtures("third_party")
def test_json_then_compare_with_itself(bench_process, bench, tmp_path):
    done = bench_process("throughput", TINY, "--backend", "fine", "--json", *QUICK)
    assert done.code == 0, done.err
    document = done.document
    assert [row["batch_size"] for row in document["rows"]] == [1, 32]
    assert document["rows"][0]["threads"] == 1
    for row in document["rows"]:  # as if of six processes on a quiet machine
        speed = row["images_per_second"]
        row.update(noisy=False, processes=6, other_processes=0.0, warnings=None)
        row.update(ci_low=0.99 * speed, ci_high=1.01 * speed)
    (tmp_path / "a.json").write_text(json.dumps(document))
    speeds = ("images_per_second", "ci_low", "ci_high")
    for row in document["rows"]:
        row.update({k: row[k] / 2 for k in speeds})
    (tmp_path / "b.json").write_text(json.dumps(document))
    same = bench("compare", "a.json", "a.json", "--format", "markdown")
    assert same.code == 0
    assert same.out.startswith("| configuration |")
    slower = bench("compare", "a.json", "b.json", "--threshold", 0.2)
    assert slower.code == 1
    assert "slower" in slower.out


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows what happens without a GPU")
@pytest.mark.parametrize("backend", ["eager", "onnxruntime", "onnxruntime-tensorrt", "compile"])
def test_cuda_without_a_gpu_is_refused_with_the_reason_and_no_figure(bench, tmp_path, backend):
    done = bench("throughput", "--backend", backend, "--device", "cuda", "--json")
    assert done.document["rows"] == []
    assert done.refusal.startswith("--device cuda: ")
    assert not (tmp_path / "bench-runs").exists()


@pytest.mark.usefixtures("third_party")
def test_a_table_names_what_it_rests_on(bench):
    done = bench("throughput", TINY, "--backend", "eager", "--batch-size", 4, *QUICK)
    assert done.code == 0, done.err
    assert "reference" in done.out
    assert "entered twice, it differs from itself by" in done.out
    assert "1 threads" in done.out


def test_a_failed_cold_start_or_profile_is_an_error(capsys, tmp_path):
    cold = make_row(phase=None, status="failed", error="no time")
    layers = {
        status: {"layers": [{"status": status, "error": f"it is {status}"}]}
        for status in ("failed", "unsupported")
    }
    record = MeasurementRecord("m", {}, [make_row()], lanes=layers, cold_starts=[cold])
    assert throughput._show(record, tmp_path, as_json=True) == 1
    errors = json.loads(capsys.readouterr().out)["errors"]
    assert [one["error"] for one in errors] == ["no time", "it is failed"]


BURN = """
import sys, threading, time
from pathlib import Path
import psutil
from bench.measurement.configurations import Configuration
from bench.measurement.measured_network import find_target
from bench.measurement.timing.runner import LocalRunner

backend, threads, file = sys.argv[1], int(sys.argv[2]), sys.argv[3]
target = find_target("resnet18", input_size=64)
file = Path(file) if file else None
made = Configuration(target, backend, batch_size=16, threads=threads, file=file)
runner = LocalRunner(made)
runner.warm_up(1.0)
def used():
    return {t.id: t.user_time + t.system_time for t in psutil.Process().threads()}
before, begun = used(), time.monotonic()
while time.monotonic() - begun < 4:
    runner.block(1)
burnt = sorted((s - before.get(i, 0.0) for i, s in used().items()), reverse=True)
print(sum(seconds > burnt[0] / 4 for seconds in burnt))
"""


@pytest.fixture(scope="module")
def resnet_file(tmp_path_factory):
    from bench.measurement.measured_network import find_target
    from bench.measurement.preparation import make_file

    folder = tmp_path_factory.mktemp("onnx")
    return make_file(find_target("resnet18", input_size=64), "fp32", folder, threads=1).path


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("backend", ["eager", "compile", "onnxruntime", "openvino"])
def test_as_many_threads_burn_time_as_were_asked_for(resnet_file, backend, threads):
    if backend == "openvino":
        pytest.importorskip("openvino")
    file = str(resnet_file) if backend in {"onnxruntime", "openvino"} else ""
    command = [sys.executable, "-c", BURN, backend, str(threads), file]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) == threads
