"""The engine backend, through a fake of what it calls of TensorRT; none of it needs a GPU."""

from __future__ import annotations

import ctypes
import json
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

import bench
from bench.errors import BenchError
from bench.export.engines import Sidecar, write_engine
from bench.measurement.backends import OutOfMemoryError, UnsupportedError, Workload
from bench.measurement.backends.tensorrt import TensorRT
from bench.measurement.configurations import Configuration
from bench.measurement.measured_network import MeasuredNetwork
from bench.measurement.timing.runner import LocalRunner


class FakeTensorRT:
    """An engine of N×3×8×8 → N×2 float32, for batches of 1 to 4; answers the batch's size."""

    __version__ = "11.0"
    num_io_tensors = 2

    class Logger:
        ERROR = 1

        def __init__(self, _severity: int) -> None: ...

    class TensorIOMode:
        INPUT, OUTPUT = "in", "out"

    class LayerInformationFormat:
        JSON = "json"

    def __init__(self, full: bool = False) -> None:
        self.full = full
        self.addresses: dict[str, int] = {}
        self.batch = 0

    def Runtime(self, _logger):  # noqa: N802 - the library's name
        return self

    def deserialize_cuda_engine(self, content):
        return None if content == b"broken" else self

    def create_execution_context(self, config=None):
        self.config = config
        return None if self.full else Context(self)

    def create_engine_inspector(self):
        return self

    def get_engine_information(self, form):
        assert form == "json"
        return json.dumps({"Layers": ["conv", "pool"]})

    def get_tensor_name(self, index):
        return ("image", "logits")[index]

    def get_tensor_mode(self, name):
        return "in" if name == "image" else "out"

    def get_tensor_dtype(self, _name):
        return "DataType.FLOAT"

    def get_tensor_shape(self, name):
        return (-1, 3, 8, 8) if name == "image" else (-1, 2)


class Context:
    def __init__(self, engine) -> None:
        self.engine = engine

    def set_input_shape(self, _name, shape):
        self.engine.batch = shape[0]
        return shape[0] <= 4

    def get_tensor_shape(self, _name):
        return (self.engine.batch, 2)

    def set_tensor_address(self, name, address):
        self.engine.addresses[name] = address

    def execute_async_v3(self, stream):
        self.engine.stream = stream
        count = self.engine.batch * 2
        memory = (ctypes.c_float * count).from_address(self.engine.addresses["logits"])
        memory[:] = [float(self.engine.batch)] * count
        return True


@pytest.fixture
def engine(tmp_path):
    """Write an engine with its sidecar."""

    def write(
        content: bytes = b"engine",
        version: str = "11.0",
        precision: str = "fp16",
        flags: tuple[str, ...] = ("STRONGLY_TYPED", "NO_TF32"),
    ):
        path = tmp_path / "m.engine"
        sidecar = Sidecar("0" * 64, version, "rtx", "86", 1, 2, 4, precision, flags)
        write_engine(path, content, sidecar)
        return path

    return write


def work(file, batch=2, size=8):
    return Workload(None, file, (3, size, size), batch, precision="fp16")


def prepare(workload):
    return TensorRT(load=lambda _name: FakeTensorRT()).prepare(workload)


def test_an_engine_answers_and_its_layers_are_read_back(engine):
    ready = prepare(work(engine()))
    answer = ready.download(ready.infer(ready.upload(torch.zeros(2, 3, 8, 8))))
    assert answer.tolist() == [[2.0, 2.0], [2.0, 2.0]]
    said = ready.describe()
    assert (said.provider, said.precision) == ("TensorRT rtx 11.0", "fp16")
    assert prepare(work(engine(precision="fp32"))).describe().precision == "fp32"
    allowed = engine(precision="fp32", flags=("STRONGLY_TYPED",))
    assert prepare(work(allowed)).describe().precision == "tf32"
    assert said.nodes == {"TensorRT": 2}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"batch": 8}, "takes batches of 1 to 4, not 8"),
        ({"size": 16}, "takes images of 3×8×8, not of 3×16×16"),
    ],
)
def test_other_shapes_are_refused_with_both_shown(engine, changed, expected):
    with pytest.raises(UnsupportedError, match=expected):
        prepare(work(engine(), **changed))


def test_other_versions_and_broken_engines_are_refused(engine):
    with pytest.raises(UnsupportedError, match=r"built by TensorRT 10\.9, here is 11\.0"):
        prepare(work(engine(version="10.9")))
    with pytest.raises(UnsupportedError, match="refuses"):
        prepare(work(engine(b"broken")))


class FakeRTX(FakeTensorRT):
    """As the fake, with what TensorRT for RTX has besides."""

    class DynamicShapesKernelSpecializationStrategy:
        EAGER = "eager"

    class CudaGraphStrategy:
        WHOLE_GRAPH_CAPTURE = "whole graph"

    def create_runtime_config(self):
        return SimpleNamespace()


def test_rtx_compiles_for_the_shape_at_once_and_captures_a_graph(engine):
    ready = TensorRT(load=lambda _name: FakeRTX()).prepare(work(engine()))
    assert vars(ready.engine.config) == {
        "dynamic_shapes_kernel_specialization_strategy": "eager",
        "cuda_graph_strategy": "whole graph",
    }
    assert prepare(work(engine())).engine.config is None


def test_the_fake_of_rtx_has_nothing_that_the_library_has_not():
    real = pytest.importorskip("tensorrt_rtx")
    assert hasattr(real.DynamicShapesKernelSpecializationStrategy, "EAGER")
    assert hasattr(real.CudaGraphStrategy, "WHOLE_GRAPH_CAPTURE")
    assert hasattr(real.ICudaEngine, "create_runtime_config")
    for name in ("dynamic_shapes_kernel_specialization_strategy", "cuda_graph_strategy"):
        assert hasattr(real.IRuntimeConfig, name)


@pytest.mark.parametrize(
    ("installed", "capability", "refused"),
    [
        ({"tensorrt_rtx"}, (9, 0), True),
        ({"tensorrt_rtx"}, (12, 0), False),
        ({"tensorrt_rtx", "tensorrt"}, (9, 0), False),
    ],
)
def test_on_hopper_the_standard_library_is_needed(monkeypatch, installed, capability, refused):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name in installed or None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    missing = {pair.precision: pair.missing for pair in TensorRT().support()}["fp16"]
    assert (missing is not None) == refused
    assert not refused or missing.startswith("TensorRT for RTX cannot target this GPU")


def test_an_engine_without_room_is_out_of_memory(engine):
    with pytest.raises(OutOfMemoryError, match="working memory does not fit"):
        TensorRT(load=lambda _name: FakeTensorRT(full=True)).prepare(work(engine()))


def test_an_engine_runs_on_a_stream_of_its_own(engine, monkeypatch):
    waited = []
    own = SimpleNamespace(cuda_stream=42, wait_stream=waited.append)
    monkeypatch.setattr("bench.measurement.backends.tensorrt._own_stream", lambda _device: own)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _device: "torch's")
    entered = []
    monkeypatch.setattr(torch.cuda, "stream", lambda s: entered.append(s) or nullcontext())
    ready = prepare(work(engine()))
    answer = ready.download(ready.infer(ready.upload(torch.zeros(2, 3, 8, 8))))
    assert answer.tolist() == [[2.0, 2.0]] * 2
    assert ready.engine.stream == 42
    assert waited == ["torch's"]  # which may still prepare the images
    assert entered == [own, own]  # the copies to and from the device


def test_an_engine_for_another_gpu_is_refused(engine, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device=None: (9, 0))
    with pytest.raises(UnsupportedError, match="compute capability 86, this GPU has 90"):
        prepare(work(engine()))


def test_a_runner_samples_an_engine(engine, monkeypatch):
    monkeypatch.setattr(
        "bench.measurement.timing.runner.load_backend",
        lambda _: TensorRT(load=lambda _name: FakeTensorRT()),
    )
    target = MeasuredNetwork("t", "engine", (3, 8, 8))
    made = Configuration(target, "tensorrt", "fp16", batch_size=2, file=engine())
    runner = LocalRunner(made)
    runner.warm_up(0.1)
    assert all(seconds > 0 for seconds in runner.block(3))


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows what happens without a GPU")
def test_without_a_gpu_an_engine_is_refused_and_a_network_is_told_what_to_build(engine, tmp_path):
    with pytest.raises(BenchError, match="needs a CUDA device"):
        bench.measure(str(engine()), results=tmp_path)
    with pytest.raises(BenchError, match="build one with 'bench export-tensorrt'"):
        bench.measure("resnet20", backends=("tensorrt",), device="cpu", results=tmp_path)


def test_an_engines_multiply_adds_are_those_of_the_file_it_was_built_from(tmp_path, monkeypatch):
    from bench.measurement.measured_network import find_target
    from bench.models import build_model
    from bench.networks.summary import count_macs

    exported = bench.export_onnx("resnet8", options={"width": 4}, results=tmp_path, threads=1)
    sidecar = Sidecar(exported["sha256"].item(), "11.0", "rtx", "86", 1, 2, 4, "fp32")
    write_engine(tmp_path / "m.engine", b"engine", sidecar)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        "bench.measurement.measured_network.engine_input",
        lambda _file: ((None, 3, 32, 32), "float32"),
    )
    name = str(tmp_path / "m.engine")
    model = build_model("resnet8", width=4).eval()
    assert find_target(name, results=tmp_path).macs == count_macs(model, (1, 3, 32, 32))
    assert find_target(name, results=tmp_path / "elsewhere").macs is None
