"""How fast networks answer, for `bench compare` of two commits on one machine.

    nox -s benchmarks -- -k networks
    mv benchmarks.json main.json        # and again on the branch
    bench compare main.json benchmarks.json

Figures of two days or machines do not compare; `bench throughput` is what interleaves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.measurement.backends import Workload, load_backend
from bench.measurement.measured_network import find_target
from bench.measurement.preparation import make_file
from bench.system.devices import physical_cores

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_benchmark.fixture import BenchmarkFixture

pytestmark = pytest.mark.slow

NETWORKS = {
    "resnet18": (224, 8),
    "plain18": (224, 8),
    "preact_resnet18": (224, 8),
    "plain_cnn": (224, 8),
    "resnet20": (32, 128),
    "plain20": (32, 128),
}
ROUNDS = 20  # of which compare makes an interval


@pytest.mark.parametrize("backend", ["eager", "onnxruntime"])
@pytest.mark.parametrize("name", NETWORKS)
def test_forward(benchmark: BenchmarkFixture, tmp_path: Path, name: str, backend: str) -> None:
    """One batch, as `bench throughput` runs it."""
    import torch

    size, batch = NETWORKS[name]
    threads = physical_cores()
    target = find_target(name, input_size=size)
    onnx = backend == "onnxruntime"
    file = make_file(target, "fp32", tmp_path, threads=threads).path if onnx else None
    model = None if onnx else target.load().model
    ready = load_backend(backend).prepare(
        Workload(model, file, target.input_shape, batch, threads=threads)
    )
    images = ready.upload(torch.randn(batch, *target.input_shape))
    benchmark.extra_info.update(batch_size=batch, input_size=size, threads=threads)
    benchmark.pedantic(lambda: ready.infer(images), rounds=ROUNDS, warmup_rounds=3)
