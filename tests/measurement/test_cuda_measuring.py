"""Measuring on CUDA, as far as fakes and fake tensors reach; none of it needs a GPU."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import DeviceType

from bench.measurement.backends import Executed, Workload, load_backend
from bench.measurement.backends.clocks import WallClock
from bench.measurement.backends.cudagraphs import CapturedPrepared
from bench.measurement.backends.eager import TorchPrepared, set_float32
from bench.measurement.configurations import Configuration
from bench.measurement.measured_network import MeasuredNetwork
from bench.measurement.profile import torch_profile
from bench.measurement.timing import runner as running
from bench.measurement.timing.runner import LocalRunner, RunnerReport
from bench.measurement.timing.sampling import Goal, run_plan
from bench.measurement.timing.trial import Trial

CUDNN, MATMUL = torch.backends.cudnn, torch.backends.cuda.matmul


@pytest.fixture(autouse=True)
def _settings():
    """Leave PyTorch's settings as they were."""
    parts = (CUDNN.conv, CUDNN.rnn, MATMUL)
    before, searched = [part.fp32_precision for part in parts], CUDNN.benchmark
    yield
    CUDNN.benchmark = searched
    for part, precision in zip(parts, before, strict=True):
        part.fp32_precision = precision


def tiny() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


def work(device: str = "cpu", **changed) -> Workload:
    return Workload(tiny(), None, (3, 8, 8), 2, device, **changed)


# PyTorch's switches


@pytest.mark.parametrize("used", ["nothing", "fp32_precision", "allow_tf32"])
@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_tf32_is_switched_and_can_be_read_whichever_interface_a_program_has_used(used, precision):
    if used == "fp32_precision":
        CUDNN.conv.fp32_precision, MATMUL.fp32_precision = "ieee", "tf32"
        with pytest.raises(RuntimeError):
            _ = CUDNN.allow_tf32
    elif used == "allow_tf32":
        CUDNN.allow_tf32 = MATMUL.allow_tf32 = precision != "tf32"
    set_float32(precision)
    wanted = "tf32" if precision == "tf32" else "ieee"
    assert (CUDNN.conv.fp32_precision, MATMUL.fp32_precision) == (wanted, wanted)
    assert CUDNN.allow_tf32 is MATMUL.allow_tf32 is (precision == "tf32")


def test_cudnn_searches_for_its_fastest_algorithms():
    CUDNN.benchmark = False
    TorchPrepared(work())
    assert not CUDNN.benchmark  # a CPU has none
    nothing_to_move = nn.Flatten()
    TorchPrepared(Workload(nothing_to_move, None, (3, 8, 8), 2, "cuda"))
    assert CUDNN.benchmark


# CUDA graphs


class FakeStream:
    def __init__(self, log, name):
        self.log, self.name = log, name

    def wait_stream(self, other):
        self.log.append(f"{self.name} waits for {other.name}")


@pytest.fixture
def cuda_graphs(monkeypatch):
    """Fake what is called of `torch.cuda`; returns the log of calls."""
    log = []
    monkeypatch.setattr(torch.cuda, "device", lambda _device: nullcontext())
    monkeypatch.setattr(torch.cuda, "Stream", lambda: FakeStream(log, "beside"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: FakeStream(log, "current"))
    monkeypatch.setattr(torch.cuda, "stream", lambda s: log.append(f"on {s.name}") or nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", SimpleNamespace)
    monkeypatch.setattr(
        torch.cuda,
        "graph",
        lambda _graph, stream: log.append(f"capture {stream.name}") or nullcontext(),
    )
    return log


def test_a_graph_is_captured_after_a_warm_up_and_reads_where_it_was_captured(
    cuda_graphs, monkeypatch
):
    network = TorchPrepared(work(memory_format="channels_last"))
    infer = network.infer
    monkeypatch.setattr(network, "infer", lambda b: cuda_graphs.append("infer") or infer(b))
    ready = CapturedPrepared(network)
    assert cuda_graphs == [
        "beside waits for current", "on beside", "infer", "infer", "infer",
        "current waits for beside", "capture beside", "infer",
    ]  # fmt: skip
    place = ready.images.data_ptr()
    ready.graph.replay = lambda: ready.output.data.copy_(infer(ready.images))
    images = torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        answer = ready.download(ready.infer(ready.upload(images)))
        expected = network.model(images)
    torch.testing.assert_close(answer, expected)
    assert ready.images.data_ptr() == place
    assert ready.images.is_contiguous(memory_format=torch.channels_last)
    said = ready.describe()
    assert said.provider.startswith("CUDA graph of torch ")
    assert said.details["cuda_graph"] is True


@pytest.mark.parametrize("name", ["eager-graph", "compile-graph"])
def test_graphs_exist_on_cuda_only_and_have_no_profile(name):
    backend = load_backend(name)
    assert {pair.device for pair in backend.support()} == {"cuda"}
    assert not hasattr(backend, "profile")


# Profiles


def test_kernels_are_counted_once_on_cuda(monkeypatch):
    """PyTorch lists ranges and kernels once more, as events of the device."""

    def event(key, cpu, device, own, kind=DeviceType.CPU):
        return SimpleNamespace(
            key=key, cpu_time_total=cpu, device_time_total=device, self_cpu_time_total=cpu,
            self_device_time_total=own, device_type=kind,
        )  # fmt: skip

    events = [
        event("bench.layer:0", 9.0, 30.0, 0.0),
        event("aten::conv2d", 5.0, 30.0, 0.0),
        event("aten::cudnn_convolution", 4.0, 30.0, 30.0),
        event("bench.layer:0", 0.0, 95.0, 95.0, DeviceType.CUDA),  # with the gaps between kernels
        event("sm90_xmma_fprop", 0.0, 30.0, 30.0, DeviceType.CUDA),
    ]

    class Profile:
        key_averages = staticmethod(lambda: events)
        __enter__ = lambda self: self  # noqa: E731
        __exit__ = lambda *_: None  # noqa: E731

    monkeypatch.setattr(torch_profile, "torch_profile", lambda **_: Profile())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _device: None)
    layers, operators = torch_profile.profile_modules(tiny(), lambda: None, 1, torch.device("cuda"))
    assert {layer.name: layer.microseconds for layer in layers}["0"] == 30.0
    assert sum(microseconds for _, microseconds in operators) == 30.0


# Runners


def test_the_clock_waits_for_the_device_before_and_after_the_calls(monkeypatch):
    log, times = [], iter([10**9, 4 * 10**9])
    monkeypatch.setattr(
        "bench.measurement.backends.clocks.time.perf_counter_ns",
        lambda: log.append("now") or next(times),
    )
    clock = WallClock(lambda: log.append("wait"), lambda: log.append("before"))
    assert clock.measure(lambda: log.append("call"), 3) == pytest.approx(1.0)
    assert log == ["before", "wait", "now", "call", "call", "call", "wait", "now"]


@pytest.fixture
def opened(monkeypatch, fake_backend):
    """Open a runner on a device; a call takes 0.1 ms, twice that if it is the only one."""
    del fake_backend

    def measure(clock, call, repeats):
        clock.before()
        call()
        return 1e-4 if repeats > 1 else 2e-4

    monkeypatch.setattr(WallClock, "measure", measure)
    monkeypatch.setattr(running, "open_gpu", lambda _device: None)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda images: images)

    def make(device="cuda", raw_shape=None, **changed):
        target = MeasuredNetwork("t", "model", (3, 8, 8), raw_shape=raw_shape)
        return LocalRunner(Configuration(target, "fake", batch_size=2, device=device, **changed))

    return make


@pytest.mark.parametrize(
    ("device", "changed", "calls"),
    [
        ("cuda", {}, 200),  # 20 ms, by the time of calls that follow each other
        ("cuda", {"scenario": "single-stream"}, 1),
        ("cpu", {}, 5),  # 1 ms
    ],
)
def test_a_sample_on_cuda_is_long_enough_for_a_queue_to_fill(opened, device, changed, calls):
    runner = opened(device, **changed)
    assert runner.warm_up(0.1).repeats == runner.repeats == calls
    assert type(runner.clock) is WallClock


def test_blocks_of_long_samples_are_as_long_as_others(opened):
    trial = Trial(opened().configuration, opened())
    run_plan([trial], Goal(max_seconds=0.01, block_seconds=0.25, rounds=1))
    assert trial.samples_per_block == pytest.approx(0.25 / (200 * 2e-4), abs=1)


def test_the_cache_is_cleared_before_every_call(opened, monkeypatch):
    cleared = []
    monkeypatch.setattr(running, "clear_l2", lambda _device: lambda: cleared.append(1))
    runner = opened(clear_l2=True)
    assert runner.warm_up(0.1).repeats == 1
    cleared.clear()
    runner.clock.measure(runner.step, 1)
    assert cleared == [1]


def test_end_to_end_sends_bytes_and_normalises_on_the_device(opened, monkeypatch):
    seen = []

    def normalise(images):
        seen.append((images.device.type, images.dtype))
        return images.float() / 255

    monkeypatch.setattr(MeasuredNetwork, "preprocess", lambda _: normalise)
    with FakeTensorMode():
        runner = opened(boundary="end-to-end")
        runner.step()
        (images,) = runner.prepared.uploaded
    assert (images.device.type, images.dtype) == ("cuda", torch.float32)
    assert seen == [("cuda", torch.uint8)]
    runner = opened("cpu", boundary="end-to-end")
    runner.step()
    assert runner.prepared.uploaded[0].device.type == "cpu"


def test_end_to_end_begins_with_images_of_the_datasets_size(opened, monkeypatch):
    seen = []
    monkeypatch.setattr(MeasuredNetwork, "preprocess", lambda _: lambda raw: seen.append(raw.shape))
    opened("cpu", boundary="end-to-end").step()
    opened("cpu", boundary="end-to-end", raw_shape=(3, 5, 5)).step()
    assert seen == [(2, 3, 8, 8), (2, 3, 5, 5)]


class Counter:
    """A meter of a GPU: ten joules a window."""

    def __init__(self, _device):
        self.joules = 0.0

    def __enter__(self):
        self.joules += 10.0

    def __exit__(self, *_):
        """Nothing to read."""


def test_energy_of_a_gpu_is_of_one_long_window_and_of_no_block(opened, monkeypatch):
    monkeypatch.setattr(running, "Meter", Counter)
    monkeypatch.setattr(running, "_ENERGY_SECONDS", 0.01)
    runner = opened()
    runner.warm_up(0.1)
    runner.block(3)
    assert runner.describe().energy_joules is None
    runner.measure_energy()
    report = runner.describe()
    assert report.energy_joules == 10.0
    assert report.images > 0
    assert report.images % (2 * runner.repeats) == 0
    # Other processes have not measured it, and count neither joules nor images.
    both = report.plus(RunnerReport(Executed("fake", "fp32")))
    assert (both.energy_joules, both.images) == (10.0, report.images)
