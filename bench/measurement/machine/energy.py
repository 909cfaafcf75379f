"""Energy and memory counters; what cannot be read is None, never zero."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from bench.measurement.machine.nvml import open_gpu

if sys.platform != "win32":
    import resource

_RAPL = Path("/sys/class/powercap")


class Meter:
    """Adds up the energy used inside `with` blocks.

    Args:
        device: cpu (RAPL package counters) or cuda:N (NVML's total energy counter).
    """

    def __init__(self, device: str) -> None:
        self.counters = _nvml(device) if device.startswith("cuda") else _rapl()
        self.joules: float | None = 0.0 if self.counters else None
        self.before: list[float] = []

    def __enter__(self) -> None:
        self.before = [read() for read, _ in self.counters]

    def __exit__(self, *_: object) -> None:
        if self.joules is None:
            return
        for (read, wraps_at), before in zip(self.counters, self.before, strict=True):
            used = read() - before
            self.joules += used + (wraps_at if used < 0 else 0.0)


class AllocatorPeak:
    """Peak memory that one network holds in torch's CUDA allocator, without other networks'."""

    def __init__(self, device: str) -> None:
        self.device = device if device.startswith("cuda") else None
        self.before = self._allocated()
        self.own = self.start = 0
        self.peak: int | None = None

    def prepared(self) -> None:
        """Record what it holds at rest; called once, after the network was prepared."""
        self.own = self._allocated() - self.before

    def __enter__(self) -> None:
        if self.device is not None:
            torch.cuda.reset_peak_memory_stats(self.device)
            self.start = self._allocated()

    def __exit__(self, *_: object) -> None:
        if self.device is not None:
            working = torch.cuda.max_memory_allocated(self.device) - self.start
            self.peak = max(self.peak or 0, self.own + working)

    @property
    def mib(self) -> float | None:
        """Peak in MiB; None if it is not known."""
        return None if self.peak is None else self.peak / 2**20

    def _allocated(self) -> int:
        if self.device is None:
            return 0
        return int(torch.cuda.memory_allocated(self.device))


def peak_process_memory() -> float | None:
    """Return the peak resident memory of this process in MiB; None on Windows."""
    if sys.platform == "win32":
        return None
    with suppress(OSError):
        # Not getrusage's, which of a process that another one started is at least that one's peak.
        if found := re.search(rb"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_bytes()):
            return int(found[1]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _rapl() -> list[tuple[Any, float]]:
    """Return counters of the processor packages: (function that reads joules, maximum).

    The domain `psys` is the whole platform, which contains the packages.
    """
    found = []
    for folder in sorted(_RAPL.glob("intel-rapl:[0-9]*")):
        file = folder / "energy_uj"
        try:
            if not (folder / "name").read_text().startswith("package"):
                continue
            int(file.read_text())
            wraps_at = int((folder / "max_energy_range_uj").read_text()) / 1e6
        except (OSError, ValueError):  # most machines let only root read it
            return []
        found.append((lambda file=file: int(file.read_text()) / 1e6, wraps_at))
    return found


def _nvml(device: str) -> list[tuple[Any, float]]:
    gpu = open_gpu(device)
    if gpu is None or gpu.joules() is None:
        return []
    return [(lambda: gpu.joules() or 0.0, 0.0)]
