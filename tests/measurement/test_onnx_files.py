from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import bench
from bench.errors import BenchError
from bench.export.examine import examine
from bench.measurement.configurations import Request, expand
from bench.measurement.measured_network import find_target

from .conftest import TINY

QUICK = {"device": "cpu", "threads": 1, "max_seconds": 0.2, "processes": 1}


@pytest.fixture
def make(tmp_path):
    """Write a file of one 3×3 convolution."""

    def write(batch: int | str = "N", inputs: int = 1, size: int | str = 8):
        entries = [
            helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, [batch, 3, size, size])
            for i in range(inputs)
        ]
        weight = numpy_helper.from_array(np.ones((4, 3, 3, 3), "float32"), "w")
        result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 4, "h", "w"])
        graph = helper.make_graph(
            [helper.make_node("Conv", ["x0", "w"], ["y"], name="only")], "g", entries, [result],
            [weight],
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        path = tmp_path / "model.onnx"
        onnx.save(model, path)
        return path

    return write


def test_a_file_says_what_it_takes_and_costs(make):
    facts = examine(make())
    assert (facts.input_shape, facts.static_batch, facts.precision) == ((3, 8, 8), None, "fp32")
    assert facts.macs == 4 * 3 * 9 * 36


def test_a_file_is_measured_as_it_is_with_the_provider_of_every_node(make, tmp_path):
    results = tmp_path / "r"
    row = bench.measure(make(), results=results, batch_sizes=(2,), **QUICK).iloc[0]
    assert row["provider"] == "CPUExecutionProvider"
    assert row["nodes_elsewhere"] == 0
    assert row["file_sha256"]
    from bench.store.measurements import Measurements

    runners = Measurements(results).find(row["measurement"]).lanes
    executed = next(iter(runners.values()))["executed"]
    assert executed["nodes"] == {"CPUExecutionProvider": 1}
    assert executed["details"]["threads"] == 1


def test_two_files_of_one_name_are_called_by_their_paths(make, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        make().rename(tmp_path / folder / "m.onnx")
    onnx.save(onnx.load(tmp_path / "b/m.onnx"), tmp_path / "b/m.onnx")
    files = [tmp_path / "a/m.onnx", tmp_path / "b/m.onnx"]
    frame = bench.measure(files, results=tmp_path / "r", batch_sizes=(2,), **QUICK)
    assert frame["model"].tolist() == [str(file) for file in files]


def test_a_static_batch_is_the_default_and_another_is_refused_with_both_shown(make, tmp_path):
    frame = bench.measure(make(4), results=tmp_path / "r", **QUICK)
    assert frame["batch_size"].tolist() == [4]
    with pytest.raises(BenchError, match=r"--batch-size 8: model\.onnx was made for batches of 4"):
        bench.measure(make(4), results=tmp_path / "r", batch_sizes=(8,), **QUICK)


@pytest.mark.parametrize("size", [(), (1,)])
@pytest.mark.parametrize("scenario", ["single-stream", "server"])
def test_a_static_batch_is_refused_where_one_image_runs_at_a_time(make, tmp_path, scenario, size):
    bound = 50.0 if scenario == "server" else None
    wanted = {"scenario": scenario, "latency_bound_ms": bound, "batch_sizes": size}
    fix = rf"--scenario {scenario} .* model\.onnx was made for batches of 4: use --scenario offline"
    with pytest.raises(BenchError, match=fix):
        bench.measure(make(4), results=tmp_path / "r", **wanted, **QUICK)
    one = expand(Request(**wanted), [find_target(str(make(1)))], device="cpu", threads=1)
    assert [made.batch_size for made in one] == [1]


def test_other_input_sizes_two_inputs_and_open_sizes_are_refused(make, tmp_path):
    with pytest.raises(BenchError, match=r"--input-size 32: .* was made for 8"):
        bench.measure(make(), input_size=32, results=tmp_path)
    with pytest.raises(BenchError, match="2 inputs"):
        bench.measure(make(inputs=2), results=tmp_path)
    with pytest.raises(BenchError, match="images of any size"):
        bench.measure(make(size="S"), results=tmp_path)


def test_int8_is_read_back_from_the_kernels_that_run(third_party, tmp_path):
    del third_party
    row = bench.measure(
        TINY, backends=("onnxruntime",), precisions=("int8",), batch_sizes=(2,), input_size=16,
        results=tmp_path / "r", **QUICK,
    ).iloc[0]  # fmt: skip
    assert (row["status"], row["executed_precision"]) == ("complete", "int8"), row["error"]
