"""ONNX Runtime on a GPU, through a fake of what is called of it; none of it needs a GPU."""

from __future__ import annotations

import os
import sys
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, save

from bench.measurement.backends import (
    UnsupportedError,
    Workload,
    load_backend,
    ortsession,
    status_of,
)
from bench.measurement.backends.ortsession import why_not_loaded
from bench.measurement.configurations import Configuration, why_not
from bench.measurement.machine.capabilities import examine_machine
from bench.measurement.measured_network import MeasuredNetwork
from bench.measurement.timing.runner import LocalRunner

CUDA, TENSORRT, CPU = (f"{p}ExecutionProvider" for p in ("CUDA", "Tensorrt", "CPU"))
REFUSAL = (
    "[ONNXRuntimeError] : 1 : FAIL : This session cannot use the graph capture feature as "
    "requested by the user as all compute graph nodes have not been partitioned to the "
    "CUDAExecutionProvider"
)


class FakeValue:
    """A tensor on the GPU; its place is its identity."""

    def __init__(self, shape, kind, device, index):
        self.array, self.device = np.zeros(shape, kind), (device, index)

    def __dlpack__(self, **_options):
        return self.array.__dlpack__()

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()

    def update_inplace(self, data):
        assert data.shape == self.array.shape
        assert data.dtype == self.array.dtype
        self.array[:] = data


class FakeBinding:
    def __init__(self):
        self.inputs, self.outputs = {}, {}
        self.waited = True

    def bind_ortvalue_input(self, name, value):
        self.inputs[name] = value

    def bind_ortvalue_output(self, name, value):
        self.outputs[name] = value

    def synchronize_outputs(self):
        self.waited = True

    def copy_outputs_to_cpu(self):
        assert self.waited  # the runtime's stream does not wait for a copy on another one
        return [value.array.copy() for value in self.outputs.values()]


class FakeSession:
    """Answers each image's mean in both of its logits; replays where it captured."""

    def __init__(self, path, options, providers):
        runtime = sys.modules["onnxruntime"]
        if isinstance(path, bytes):  # only asked whether the provider loads
            self.asked = dict.fromkeys(providers)
            os.write(2, runtime.complaint)
            return
        runtime.opened.append(dict(providers))
        self.options, self.asked = options, dict(providers)
        graph = any("graph" in k and v for o in self.asked.values() for k, v in o.items())
        if graph and runtime.on_cpu:
            raise RuntimeError(REFUSAL)
        if runtime.full:
            raise RuntimeError(
                "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for "
                "requested buffer of size 9663676416"
            )
        self.graph, self.captured, self.runs = graph, None, Counter()
        assert path.endswith("m.onnx")

    def get_providers(self):
        return sys.modules["onnxruntime"].loads or [*self.asked, CPU]

    def get_inputs(self):
        return [SimpleNamespace(name="image", type="tensor(float)", shape=["N", 3, 4, 4])]

    def get_outputs(self):
        return [SimpleNamespace(name="logits", type="tensor(float)", shape=["N", 2])]

    def io_binding(self):
        return FakeBinding()

    def run_with_iobinding(self, binding, options):
        binding.waited = options.entries.get("disable_synchronize_execution_providers") != "1"
        image, logits = binding.inputs["image"], binding.outputs["logits"]
        if self.graph and self.captured is None:
            self.captured = (image, logits)
        if self.graph:  # a replay reads and writes the places of the capture, whatever is bound
            image, logits = self.captured
        logits.array[:] = image.array.mean(axis=(1, 2, 3))[:, None]

    def get_provider_graph_assignment_info(self):
        runtime = sys.modules["onnxruntime"]
        first = next(iter(self.asked))
        told = [(first, ["Conv a", "Conv b"]), (CUDA, runtime.on_cuda), (CPU, runtime.on_cpu)]
        for provider, nodes in told:
            named = [SimpleNamespace(op_type=n.split()[0], name=n.split()[1]) for n in nodes]
            yield SimpleNamespace(ep_name=provider, get_nodes=lambda named=named: named)

    def get_session_options(self):
        return self.options


class FakeOptions:
    def __init__(self):
        self.entries = {}

    def add_session_config_entry(self, key, value):
        self.entries[key] = value

    add_run_config_entry = add_session_config_entry


@pytest.fixture
def runtime(monkeypatch):
    """Install a fake ONNX Runtime that loads every provider."""
    why_not_loaded.cache_clear()
    fake = SimpleNamespace(
        __spec__=object(),
        InferenceSession=FakeSession,
        SessionOptions=FakeOptions,
        RunOptions=FakeOptions,
        OrtValue=SimpleNamespace(ortvalue_from_shape_and_type=FakeValue),
        preload_dlls=lambda: None,
        get_available_providers=lambda: [TENSORRT, CUDA, CPU],
        __version__="1.99",
        opened=[], loads=None, complaint=b"", on_cpu=[], on_cuda=[], full=False,
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device=None: (8, 9))
    yield fake
    why_not_loaded.cache_clear()


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Write a file that only its input's name is read of."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sides = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 3, 4, 4]) for n in "xy"]
    sides[0].name = "image"
    node = helper.make_node("Relu", ["image"], ["y"])
    graph = helper.make_graph([node], "g", sides[:1], sides[1:])
    save(helper.make_model(graph), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def work(file, **changed):
    values = {"batch_size": 2, "device": "cuda:1", "precision": "fp32"} | changed
    return Workload(None, file, (3, 4, 4), **values)


def answers(ready, value):
    images = torch.full((2, 3, 4, 4), value)
    return ready.download(ready.infer(ready.upload(images))).tolist()


def test_cuda_runs_one_graph_over_fixed_places(runtime, file):
    ready = load_backend("onnxruntime").prepare(work(file))
    assert answers(ready, 3.0) == [[3.0, 3.0]] * 2
    assert answers(ready, 5.0) == [[5.0, 5.0]] * 2  # a replay reads what was uploaded since
    assert runtime.opened == [
        {
            CUDA: {
                "device_id": 1, "use_tf32": 0, "cudnn_conv_algo_search": "EXHAUSTIVE",
                "prefer_nhwc": 0, "enable_cuda_graph": 1,
            }
        }
    ]  # fmt: skip
    assert ready.images.device == ready.result.device == ("cuda", 1)
    said = ready.describe()
    assert (said.provider, said.precision, said.compile_seconds) == (CUDA, "fp32", None)
    assert said.details["cuda_graph"] is True
    assert said.warnings == ()
    assert ready.session.options.entries == {"session.record_ep_graph_assignment_info": "1"}


def test_tf32_is_asked_for_and_never_unasked(runtime, file):
    load_backend("onnxruntime").prepare(work(file, precision="tf32"))
    assert runtime.opened[0][CUDA]["use_tf32"] == 1


@pytest.mark.usefixtures("runtime")
def test_batches_follow_each_other_without_a_wait_and_are_waited_for_at_the_end(file):
    ready = load_backend("onnxruntime").prepare(work(file))
    batch = ready.upload(torch.zeros(2, 3, 4, 4))
    output = ready.infer(batch)
    assert not ready.binding.waited
    ready.synchronize()
    assert ready.binding.waited
    ready.infer(batch)
    ready.download(output)  # waits by itself


@pytest.mark.usefixtures("runtime")
def test_images_that_are_on_the_device_are_copied_there(file, monkeypatch):
    waited = []
    stream = SimpleNamespace(synchronize=lambda: waited.append(True))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _device: stream)
    ready = load_backend("onnxruntime").prepare(work(file))
    ready._copy_on_device(torch.full((2, 3, 4, 4), 7.0))
    assert ready.download(ready.infer(None)).tolist() == [[7.0, 7.0]] * 2
    assert waited == [True]


def test_channels_last_is_the_runtimes_preference_for_nhwc_on_cuda_only(runtime, file):
    load_backend("onnxruntime").prepare(work(file, memory_format="channels_last"))
    assert runtime.opened[0][CUDA]["prefer_nhwc"] == 1
    target = MeasuredNetwork("t", "model", (3, 4, 4))
    made = Configuration(target, "onnxruntime", memory_format="channels_last", device="cuda")
    assert why_not(made) is None
    refused = why_not(replace(made, device="cpu"))
    assert refused == "onnxruntime has no channels_last memory format"


@pytest.mark.usefixtures("runtime")
def test_layers_on_a_gpu_are_refused_where_a_profiler_times_launches(file):
    backend = load_backend("onnxruntime")
    with pytest.raises(UnsupportedError, match="times the launch of a kernel, not the kernel"):
        backend.profile(backend.prepare(work(file)), lambda: None, 1)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "with error: libcudnn.so.9: cannot open shared object file: No such file\nand more",
            " (libcudnn.so.9: cannot open shared object file: No such file)",
        ),
        ("with error: /lib/libc.so.6: version `GLIBC_2.38' not found\x1b[m",
         " (/lib/libc.so.6: version `GLIBC_2.38' not found)"),
        ("with error: libnvinfer.so.10: cannot open shared object file",
         " (libnvinfer.so.10: cannot open shared object file; pip install 'tensorrt<11')"),
        ("something else", ""),
    ],
)  # fmt: skip
def test_a_provider_that_does_not_load_is_told_in_the_loaders_words(message, expected):
    assert (
        ortsession._library([f"[E:onnxruntime:Default] Failed to load library x.so {message}"])
        == expected
    )


def test_nodes_on_the_cpu_forbid_a_graph_and_both_are_said(runtime, file):
    runtime.on_cpu = ["Shape s"]
    ready = load_backend("onnxruntime").prepare(work(file))
    assert [session[CUDA].get("enable_cuda_graph") for session in runtime.opened] == [1, None]
    said = ready.describe()
    assert said.nodes == {CUDA: 2, CPU: 1}
    assert said.elsewhere == (f"Shape s ({CPU})",)
    nodes, graph = said.warnings
    assert nodes == f"1 of 3 nodes do not run on {CUDA}: Shape s ({CPU})"
    assert graph.startswith("without a CUDA graph: as requested by the user as all compute")
    assert said.details["cuda_graph"] is False


def test_a_provider_that_does_not_load_is_refused_and_never_replaced(runtime, file):
    runtime.loads = [CPU]
    with pytest.raises(UnsupportedError, match="CUDAExecutionProvider does not load here"):
        load_backend("onnxruntime").prepare(work(file))


def test_doctor_tells_why_a_provider_does_not_load(runtime, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "a GPU")

    def found():
        findings = {f.name: f for f in examine_machine(tmp_path)}
        return {d: findings[f"backend onnxruntime, {d}"] for d in ("cpu", "cuda")}

    assert {device: finding.state for device, finding in found().items()} == {
        "cpu": "ok", "cuda": "ok",
    }  # fmt: skip
    why_not_loaded.cache_clear()
    runtime.loads = [CPU]
    runtime.complaint = b"Failed to load library x.so with error: libcudnn.so.9: cannot open it\n"
    lines = found()
    assert lines["cpu"].state == "ok"
    assert lines["cuda"].state == "missing"
    told = f"{lines['cuda'].found} {lines['cuda'].fix}"
    assert "CUDAExecutionProvider does not load here (libcudnn.so.9: cannot open it)" in told


def test_memory_that_runs_out_is_told_as_such(runtime, file):
    runtime.full = True
    with pytest.raises(UnsupportedError) as refused:
        load_backend("onnxruntime").prepare(work(file))
    assert status_of(refused.value)[0] == "out_of_memory"


@pytest.mark.parametrize(
    ("precision", "flags"),
    [
        ("tf32", {}),
        ("fp16", {"trt_fp16_enable": 1}),
        ("int8", {"trt_int8_enable": 1}),
    ],
)
def test_tensorrt_gets_one_shape_the_files_types_and_a_cache(runtime, file, precision, flags):
    ready = load_backend("onnxruntime-tensorrt").prepare(work(file, precision=precision))
    (opened,) = runtime.opened
    assert list(opened) == [TENSORRT, CUDA]  # what TensorRT does not take falls to CUDA
    assert opened[CUDA] == {"device_id": 1}
    options = opened[TENSORRT]
    cache = options.pop("trt_engine_cache_path")
    shape = "image:2x3x4x4"
    assert options == flags | {
        "device_id": 1, "trt_engine_cache_enable": 1, "trt_cuda_graph_enable": 1,
        "trt_profile_min_shapes": shape, "trt_profile_opt_shapes": shape,
        "trt_profile_max_shapes": shape,
    }  # fmt: skip
    assert "onnxruntime-1.99-tensorrt-" in cache
    said = ready.describe()
    assert (said.provider, said.precision) == (TENSORRT, precision)
    assert said.compile_seconds > 0


def test_engines_of_other_weights_batches_and_versions_are_never_found(runtime, file):
    backend = load_backend("onnxruntime-tensorrt")

    def cache(**changed):
        backend.prepare(work(file, **changed))
        return runtime.opened[-1][TENSORRT]["trt_engine_cache_path"]

    first = cache()
    assert cache() == first
    assert cache(batch_size=4) != first
    runtime.__version__ = "2.0"
    assert cache() != first
    runtime.__version__ = "1.99"
    file.write_bytes(file.read_bytes() + b"\x32\x01z")  # a field that says nothing
    assert cache() != first


def test_nodes_that_tensorrt_does_not_take_are_named(runtime, file):
    runtime.on_cuda = ["Resize r"]
    said = load_backend("onnxruntime-tensorrt").prepare(work(file)).describe()
    assert said.nodes == {TENSORRT: 2, CUDA: 1}
    assert said.warnings == (f"1 of 3 nodes do not run on {TENSORRT}: Resize r ({CUDA})",)


def test_a_runner_samples_a_session(runtime, file, monkeypatch):
    assert runtime.opened == []
    pinned, current = [], []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda images: pinned.append(images) or images)
    target = MeasuredNetwork("t", "onnx", (3, 4, 4))
    made = Configuration(
        target, "onnxruntime", batch_size=2, boundary="copies", device="cuda:1", file=file
    )
    runner = LocalRunner(made)
    assert current == [1]
    runner.warm_up(0.1)
    assert all(seconds > 0 for seconds in runner.block(3))
    assert [images.shape for images in pinned] == [(2, 3, 4, 4)]


@pytest.mark.usefixtures("runtime")
def test_what_a_provider_would_compute_otherwise_is_refused_with_the_reason():
    pairs = {s.precision: s.missing for s in load_backend("onnxruntime").support()[3:]}
    assert pairs["fp32"] is pairs["tf32"] is pairs["fp16"] is None
    assert "no int8 convolutions" in pairs["int8"]
    assert "no max-pooling in bf16" in pairs["bf16"]


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize("backend", ["eager", "compile", "onnxruntime"])
def test_an_older_gpu_has_no_tf32_and_no_bf16(monkeypatch, backend):
    monkeypatch.setattr("bench.measurement.backends.compiled.find_spec", lambda _triton: object())

    def pairs():
        return {
            s.precision: s.missing for s in load_backend(backend).support() if s.device == "cuda"
        }

    assert pairs()["tf32"] is None
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device=None: (7, 5))
    assert pairs()["fp32"] is pairs()["fp16"] is None
    assert pairs()["tf32"].startswith("this GPU has no tf32")
    assert pairs()["bf16"] is not None


@pytest.mark.usefixtures("runtime")
def test_fp32_inside_tensorrt_is_tf32_where_there_is_tf32(monkeypatch):
    monkeypatch.setattr("bench.measurement.backends.onnxruntime.find_spec", lambda _name: object())

    def pairs():
        return {s.precision: s.missing for s in load_backend("onnxruntime-tensorrt").support()}

    assert pairs()["tf32"] is None
    assert "computes fp32 in TF32" in pairs()["fp32"]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device=None: (7, 5))
    assert pairs()["fp32"] is None
    assert pairs()["tf32"].startswith("this GPU has no tf32")


def test_a_provider_that_is_only_listed_is_told_before_anything_is_measured(runtime):
    runtime.loads = [CPU]
    pairs = {(s.device, s.precision): s.missing for s in load_backend("onnxruntime").support()}
    assert pairs["cuda", "fp32"] == f"its {CUDA} does not load here"
    assert pairs["cpu", "fp32"] is None
