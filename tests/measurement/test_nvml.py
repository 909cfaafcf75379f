"""NVML through a fake of the functions that are called of `pynvml`; none of it needs a GPU."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest
import torch

from bench.measurement import measure
from bench.measurement.backends import Executed
from bench.measurement.machine.energy import AllocatorPeak, Meter
from bench.measurement.machine.noise import noise_between, take_snapshot
from bench.measurement.machine.nvml import (
    MISSING,
    GpuMonitor,
    GpuState,
    gpu_columns,
    gpu_warnings,
    open_gpu,
)
from bench.measurement.timing.replicates import Replicate, Replication
from bench.measurement.timing.runner import LocalRunner, RunnerReport

from .conftest import a_trial

UUID = "0c5f2b7e-8a43-11ee-b962-0242ac120002"


class NVMLError(Exception):
    """As the library's."""


@dataclass
class FakeNvml:
    """The second of two GPUs as NVML counts them; `clocks` are told one after the other."""

    clocks: list[int] = field(default_factory=lambda: [1980])
    reasons: int = 0x1  # idle
    pids: tuple[int, ...] = ()
    refuses: tuple[str, ...] = ()
    joules: float = 5.0
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0
    NVMLError = NVMLError

    def nvmlInit(self):  # noqa: N802 - the library's names from here on
        self._refuse("nvmlInit")

    def nvmlDeviceGetHandleByUUID(self, uuid):  # noqa: N802
        assert uuid == f"GPU-{UUID}"
        return "second"

    def nvmlDeviceGetClockInfo(self, handle, kind):  # noqa: N802
        assert handle == "second"
        self._refuse("nvmlDeviceGetClockInfo")
        if kind == 2:
            return 10251
        return self.clocks.pop(0) if len(self.clocks) > 1 else self.clocks[0]

    def nvmlDeviceGetTemperature(self, _handle, sensor):  # noqa: N802
        assert sensor == 0
        return 61

    def nvmlDeviceGetMemoryInfo(self, _handle):  # noqa: N802
        return SimpleNamespace(used=3 * 2**30)

    def nvmlDeviceGetCurrentClocksEventReasons(self, _handle):  # noqa: N802
        self._refuse("nvmlDeviceGetCurrentClocksEventReasons")
        return self.reasons

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, _handle):  # noqa: N802
        return self.reasons

    def nvmlDeviceGetComputeRunningProcesses(self, _handle):  # noqa: N802
        return [SimpleNamespace(pid=pid) for pid in self.pids]

    def nvmlDeviceGetTotalEnergyConsumption(self, _handle):  # noqa: N802
        self._refuse("nvmlDeviceGetTotalEnergyConsumption")
        self.joules += 2.0
        return self.joules * 1e3

    def _refuse(self, function):
        if function in self.refuses:
            raise NVMLError(f"{function}: not supported")


@pytest.fixture
def nvml(monkeypatch):
    """Install a fake NVML, and a torch that knows the GPU's UUID."""

    def install(**values):
        library = FakeNvml(**values)
        monkeypatch.setitem(sys.modules, "pynvml", library)
        properties = SimpleNamespace(uuid=UUID)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: properties)
        return library

    return install


def test_a_gpu_is_found_by_its_uuid_and_tells_its_state(nvml):
    nvml(reasons=0x4 | 0x20 | 0x1, pids=(7,))
    state = open_gpu("cuda:0").read()
    assert (state.sm_clock_mhz, state.memory_clock_mhz, state.temperature_c) == (1980, 10251, 61)
    assert state.memory_used_mib == 3072
    assert state.slowed_by == ("software power cap", "software thermal slowdown")
    assert state.processes == (7,)


def test_what_a_gpu_does_not_tell_is_missing_and_never_zero(nvml):
    nvml(refuses=("nvmlDeviceGetClockInfo", "nvmlDeviceGetTotalEnergyConsumption"))
    gpu = open_gpu("cuda")
    assert gpu.read().sm_clock_mhz is None
    assert gpu.joules() is None
    assert Meter("cuda").joules is None


def test_an_older_driver_tells_reasons_by_their_older_name(nvml):
    nvml(refuses=("nvmlDeviceGetCurrentClocksEventReasons",), reasons=0x8)
    assert open_gpu("cuda").read().slowed_by == ("hardware slowdown",)


def test_without_a_gpu_a_driver_or_the_library_there_is_nothing_to_open(nvml, monkeypatch):
    nvml(refuses=("nvmlInit",))
    assert open_gpu("cuda") is None
    assert open_gpu("cpu") is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert open_gpu("cuda") is None


def test_energy_is_the_difference_of_the_counter(nvml):
    nvml()
    meter = Meter("cuda")
    with meter:
        pass
    assert meter.joules == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"clocks": [1980, 1950]}, ()),
        (
            {"clocks": [1980, 1410]},
            ("the GPU's SM clock moved between 1410 and 1980 MHz",),
        ),
        ({"reasons": 0x40}, ("the GPU was slowed down: hardware thermal slowdown",)),
    ],
)
def test_moving_clocks_and_throttling_are_said(nvml, values, expected):
    nvml(**values)
    monitor = GpuMonitor(open_gpu("cuda"))
    monitor.read()
    monitor.read()
    assert gpu_warnings(monitor.states) == list(expected)
    assert gpu_columns(monitor.states)["gpu_temperature_c"] == 61


def test_a_row_tells_what_the_gpu_did_in_every_process():
    cool, warm = (
        RunnerReport(Executed("fake", "fp32", warnings=said), gpu=(state,))
        for state, said in (
            (GpuState(1980, 2619, 41, 900.0, ()), ()),
            (GpuState(1400, 2619, 84, 950.0, ("software power cap",)), ("compiled 2 graphs",)),
        )
    )
    both = cool.plus(warm)
    assert both.executed.warnings == ("compiled 2 graphs",)
    assert gpu_columns(both.gpu) == {
        "gpu_sm_clock_mhz": 1690, "gpu_memory_clock_mhz": 2619, "gpu_temperature_c": 84,
        "gpu_slowed_by": "software power cap", "peak_gpu_memory_mib": 950.0,
    }  # fmt: skip
    assert gpu_warnings(both.gpu) == [
        "the GPU was slowed down: software power cap",
        "the GPU's SM clock moved between 1400 and 1980 MHz",
    ]


@pytest.mark.usefixtures("fake_backend")
def test_a_runner_watches_its_gpu_and_its_row_tells(nvml, monkeypatch):
    from bench.measurement.configurations import Configuration
    from bench.measurement.measured_network import MeasuredNetwork
    from bench.measurement.rows import make_rows
    from bench.measurement.timing.sampling import Goal
    from bench.measurement.timing.trial import Trial

    nvml(clocks=[1980, 1410], reasons=0x4)
    target = MeasuredNetwork("t", "model", (3, 4, 4), macs=10)
    made = Configuration(target, "fake", batch_size=2, device="cuda")
    runner = LocalRunner(made)
    runner.warm_up(0.1)
    runner.block(2)
    runner.block(2)
    monkeypatch.setattr("bench.measurement.timing.runner._ENERGY_SECONDS", 0.01)
    runner.measure_energy()
    report = runner.describe()
    (row,) = make_rows(
        [Trial(made, report=report)],
        measurement="m", cpu="cpu", goal=Goal(), ceiling=None, warnings=("of all",),
    )  # fmt: skip
    assert row["gpu_sm_clock_mhz"] == (1980 + 1410) / 2
    assert row["gpu_memory_clock_mhz"] == 10251
    assert row["gpu_temperature_c"] == 61
    assert row["gpu_slowed_by"] == "software power cap"
    assert row["peak_gpu_memory_mib"] == 3072
    assert row["peak_memory_mib"] is None  # not torch's memory
    assert row["warnings"] == (
        "the GPU was slowed down: software power cap; "
        "the GPU's SM clock moved between 1410 and 1980 MHz; of all"
    )
    assert row["energy_joules_per_image"] == report.energy_joules / report.images > 0


def test_the_allocators_peak_is_the_networks_own(monkeypatch):
    allocated = {"now": 700, "peak": 0}
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _device: allocated["now"])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _device: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _device: allocated["peak"])
    memory = AllocatorPeak("cuda")
    allocated["now"] = 1000  # its own weights: 300
    memory.prepared()
    allocated["now"] = 5000  # others came
    with memory:
        allocated["peak"] = 5000 + 200
    assert memory.mib == 500 / 2**20
    assert AllocatorPeak("cpu").mib is None


def test_strangers_on_the_gpu_are_told_apart_from_our_own(nvml):
    library = nvml()
    before, after = take_snapshot("cuda"), take_snapshot("cuda")
    mine = after.processes[0]

    def warnings(*pids):
        gpu = replace(after.gpu, processes=pids)
        return [w for w in noise_between(before, replace(after, gpu=gpu))[0] if "GPU" in w]

    assert library.pids == ()
    assert warnings(mine) == []
    assert warnings(mine, -7) == ["1 other process(es) computed on the GPU"]
    assert warnings(-7) == []  # a container: our own is not among them


def test_without_the_library_a_cuda_measurement_says_what_it_did_not_see(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    seen = take_snapshot("cuda")
    assert MISSING in noise_between(seen, seen)[0]


def test_the_fake_has_nothing_that_the_library_has_not():
    real = pytest.importorskip("pynvml")
    names = [name for name in vars(FakeNvml) if name.lower().startswith("nvml")]
    assert len(names) > 8
    for name in names:
        assert hasattr(real, name), name
        if name.startswith("NVML_"):
            assert getattr(real, name) == getattr(FakeNvml, name)


def test_what_its_processes_saw_on_the_gpu_is_said(monkeypatch, tmp_path):
    """They have a context there; the process that started them has none."""
    seen = Replicate(0, 1, "", 1.0, noise={"gpu": ["1 other process(es) computed on the GPU"]})
    monkeypatch.setattr(measure, "replicate", lambda *_: Replication([seen, seen], []))
    context = measure.Context(tmp_path, "cpu", 1)
    noise, _ = measure.run_trials([a_trial("fake", None)], measure.Request(processes=2), context)
    assert noise["warnings"].count("1 other process(es) computed on the GPU") == 1
