"""State of a GPU from NVIDIA's management library: clocks, throttling, temperature, energy.

Uses `nvidia-ml-py` (extra `nvml`). What a GPU or its driver does not report is None, never zero.
Not run on a GPU yet; the tests call a fake of the library.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

MISSING = "clocks and throttling of the GPU were not observed: pip install 'resnet-bench[nvml]'"
# Bits of nvmlClocksEventReasons (the older name is nvmlClocksThrottleReasons); idleness and
# clocks set by a user do not count.
_SLOWED = {
    0x04: "software power cap",
    0x08: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
_REASONS = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
_MOVED = 0.05  # a clock that moves by so much moves a figure by about as much
_MIB = 2**20


@dataclass(frozen=True)
class GpuState:
    """The state of a GPU at one moment; None is what it does not report.

    Attributes:
        sm_clock_mhz: of the streaming multiprocessors.
        memory_clock_mhz: of its memory.
        temperature_c: of the chip, °C.
        memory_used_mib: of all processes.
        slowed_by: reasons why its clocks are held down.
        processes: ids of the processes that compute on it.
    """

    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    temperature_c: int | None = None
    memory_used_mib: float | None = None
    slowed_by: tuple[str, ...] | None = None
    processes: tuple[int, ...] = ()


class Gpu:
    """One GPU: the initialised module `pynvml`, and its handle of the GPU."""

    def __init__(self, library: Any, handle: Any) -> None:
        self.library, self.handle = library, handle

    def read(self) -> GpuState:
        """Read the state; takes about a millisecond."""
        memory = self._ask("nvmlDeviceGetMemoryInfo")
        running = self._ask("nvmlDeviceGetComputeRunningProcesses") or ()
        return GpuState(
            sm_clock_mhz=self._ask("nvmlDeviceGetClockInfo", self.library.NVML_CLOCK_SM),
            memory_clock_mhz=self._ask("nvmlDeviceGetClockInfo", self.library.NVML_CLOCK_MEM),
            temperature_c=self._ask("nvmlDeviceGetTemperature", self.library.NVML_TEMPERATURE_GPU),
            memory_used_mib=None if memory is None else memory.used / _MIB,
            slowed_by=self._slowed_by(),
            processes=tuple(int(process.pid) for process in running),
        )

    def joules(self) -> float | None:
        """Return the energy used since the driver was loaded; None without a counter."""
        millijoules = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return None if millijoules is None else millijoules / 1e3

    def _slowed_by(self) -> tuple[str, ...] | None:
        for function in _REASONS:
            bits = self._ask(function)
            if bits is not None:
                return tuple(name for bit, name in _SLOWED.items() if bits & bit)
        return None

    def _ask(self, function: str, *arguments: Any) -> Any:
        call = getattr(self.library, function, None)
        if call is None:
            return None
        try:
            return call(self.handle, *arguments)
        except self.library.NVMLError:  # not every GPU and driver reports everything
            return None


def open_gpu(device: str) -> Gpu | None:
    """Open a CUDA device in NVML; None for other devices, without the library or its driver."""
    if not device.startswith("cuda"):
        return None
    try:
        library = import_module("pynvml")
    except ImportError:
        return None
    try:
        library.nvmlInit()
        return Gpu(library, _handle(library, device))
    except library.NVMLError:
        return None


def _handle(library: Any, device: str) -> Any:
    """Find torch's device by its UUID: NVML ignores CUDA_VISIBLE_DEVICES and orders otherwise."""
    import torch

    uuid = str(torch.cuda.get_device_properties(device).uuid)
    return library.nvmlDeviceGetHandleByUUID(uuid if "-" in uuid[:4] else f"GPU-{uuid}")


@dataclass
class GpuMonitor:
    """Reads the state of a GPU, if there is one, after each block of samples (untimed)."""

    gpu: Gpu | None
    states: list[GpuState] = field(default_factory=list)

    def read(self) -> None:
        """Read the state once more."""
        if self.gpu is not None:
            self.states.append(self.gpu.read())


def gpu_columns(states: Sequence[GpuState]) -> dict[str, Any]:
    """Return columns of the `throughput` table: medians of clocks, maxima of the others."""
    clocks = (_seen(states, name) for name in ("sm_clock_mhz", "memory_clock_mhz"))
    sm, memory = (statistics.median(seen) if seen else None for seen in clocks)
    return {
        "gpu_sm_clock_mhz": sm,
        "gpu_memory_clock_mhz": memory,
        "gpu_temperature_c": max(_seen(states, "temperature_c"), default=None),
        "gpu_slowed_by": ", ".join(_reasons(states)) or None,
        "peak_gpu_memory_mib": max(_seen(states, "memory_used_mib"), default=None),
    }


def gpu_warnings(states: Sequence[GpuState]) -> list[str]:
    """Return what a reader of the figures must know."""
    clocks = {"SM clock": "sm_clock_mhz", "memory clock": "memory_clock_mhz"}
    moved = {
        name: seen
        for name, attribute in clocks.items()
        if (seen := _seen(states, attribute)) and max(seen) - min(seen) > _MOVED * max(seen)
    }
    return [f"the GPU was slowed down: {reason}" for reason in _reasons(states)] + [
        f"the GPU's {name} moved between {min(seen):g} and {max(seen):g} MHz"
        for name, seen in moved.items()
    ]


def _seen(states: Sequence[GpuState], attribute: str) -> list[float]:
    values = [getattr(state, attribute) for state in states]
    return [value for value in values if value is not None]


def _reasons(states: Sequence[GpuState]) -> list[str]:
    return list(dict.fromkeys(r for state in states for r in state.slowed_by or ()))
