"""Energy and memory counters; what cannot be read is None, never zero."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


def peak_device_memory(device: str) -> float | None:
    """Peak of torch's allocator on a CUDA device in MiB; None elsewhere."""
    if not device.startswith("cuda"):
        return None
    import torch

    return torch.cuda.max_memory_allocated(device) / 2**20


def peak_process_memory() -> float | None:
    """Peak resident memory of this process in MiB; None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _rapl() -> list[tuple[Any, float]]:
    """Counters of the processor packages: (read joules, joules at which it wraps)."""
    found = []
    for folder in sorted(_RAPL.glob("intel-rapl:[0-9]")):
        file = folder / "energy_uj"
        try:
            int(file.read_text())
            wraps_at = int((folder / "max_energy_range_uj").read_text()) / 1e6
        except (OSError, ValueError):  # most machines let only root read it
            return []
        found.append((lambda file=file: int(file.read_text()) / 1e6, wraps_at))
    return found


def _nvml(device: str) -> list[tuple[Any, float]]:
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(int(device.partition(":")[2] or 0))
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception:  # not installed, or a GPU without the counter
        return []
    return [(lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3, 0.0)]
