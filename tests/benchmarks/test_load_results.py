"""`load_results` from 100 to 100,000 runs.

Times are those of a separate process, after imports, with the files in the system's cache; no
study refers to the runs. `extra_info` holds the figures; pytest-benchmark's own table shows loads
in this process. Linux only: it reads a process's peak memory from /proc.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import bench
from builders import make_record, make_request, write_run

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_benchmark.fixture import BenchmarkFixture

EPOCHS = 5
LOADS = 5
SIZES = [
    100,
    pytest.param(1_000, marks=pytest.mark.slow),
    pytest.param(10_000, marks=pytest.mark.slow),
    pytest.param(100_000, marks=pytest.mark.slow),
]
MOST_BYTES = 1e9  # of a process at 100,000 records

# Loads the table several times; prints seconds, rows, and peak memory.
PROGRAM = """
import json, pathlib, sys, tempfile, time
from bench.report.study_data import load_results

root, table, loads = sys.argv[1:]
with tempfile.TemporaryDirectory() as empty:
    load_results(empty, table)  # imports what the first load would
seconds, cpu = [], []
for _ in range(int(loads)):
    started, busy = time.perf_counter(), time.process_time()
    frame = load_results(root, table)
    seconds.append(time.perf_counter() - started)
    cpu.append(time.process_time() - busy)
# Not getrusage's: that keeps the memory of the process which forked this one.
status = pathlib.Path("/proc/self/status").read_text()
peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "rows": len(frame), "bytes": peak}))
"""


def fill(root: Path, count: int) -> None:
    """Write finished runs as the store does, but for waiting until the disk has them."""
    history = "epoch,train_loss,train_accuracy,learning_rate,seconds\n" + "".join(
        f"{epoch},{1 / epoch},{1 - 1 / epoch},0.1,1.25\n" for epoch in range(1, EPOCHS + 1)
    )
    pattern = make_request(dataset="fashion-mnist-mini")
    environment = {
        "device": "cpu", "threads": 1, "cpu": "made up", "git_commit": "0" * 40,
        "instruction_sets": ["avx", "avx2", "fma"], "torch": "2.15.0", "python": "3.11.2",
        "platform": "Linux-6.1.0-x86_64-with-glibc2.36", "numpy": "2.4.0", "bench": "0.1.0",
    }  # fmt: skip
    for seed in range(count):
        result = {
            "parameters": 272_474, "macs": 31_380_000, "input_shape": [1, 28, 28],
            "test_accuracy": 0.9 + seed % 100 / 1e3, "train_accuracy": 0.95, "test_loss": 0.3,
            "train_loss": 0.2, "generalization_gap": 0.05, "images_per_second": 1234.5,
            "per_class_accuracy": [0.9] * 10, "classes": [f"class {i}" for i in range(10)],
        }  # fmt: skip
        request = dataclasses.replace(pattern, seed=seed)
        write_run(root, make_record(request, result=result, environment=environment), history)


def load(root: Path, table: str, loads: int) -> dict[str, Any]:
    words = [str(root), table, str(loads)]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], check=True, capture_output=True,
        text=True, cwd=root,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module", params=SIZES)
def tree(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("runs")
    fill(root, request.param)
    return root, request.param


@pytest.mark.parametrize("table", ["runs", "epochs"])
def test_load_results(benchmark: BenchmarkFixture, tree: tuple[Path, int], table: str) -> None:
    root, count = tree
    loaded = load(root, table, LOADS)
    assert loaded["rows"] == count * (EPOCHS if table == "epochs" else 1)
    assert loaded["bytes"] < MOST_BYTES
    figures: dict[str, float] = {"records": count, "peak_mb": loaded["bytes"] / 1e6}
    for kind in ("seconds", "cpu_seconds"):  # a busy machine stretches the first alone
        figures[kind] = statistics.median(loaded[kind])
        figures[f"records_per_{kind.removesuffix('s')}"] = count / figures[kind]
    benchmark.extra_info.update(figures)
    bench.load_results(root, table)  # type: ignore[arg-type]
    benchmark.pedantic(bench.load_results, (root, table), rounds=3)
