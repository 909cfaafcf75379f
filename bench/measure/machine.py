"""Machine noise, observed: what else happened while the samples were taken."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import asdict, dataclass
from typing import Any

# What moves a figure by about as much as the interval wants to resolve.
_STEAL = 0.01
_OTHERS = 0.05
_FREQUENCY = 0.05
_LOAD = 0.5  # of the cores, in the minute before: what ran may not have ended
_GPU_FIELDS = (
    "clocks.sm", "temperature.gpu", "power.draw",
    "clocks_event_reasons.hw_thermal_slowdown", "clocks_event_reasons.sw_thermal_slowdown",
)  # fmt: skip


@dataclass(frozen=True)
class Snapshot:
    """The machine's counters at one moment; None is what cannot be read here.

    Attributes:
        time: monotonic seconds.
        busy: CPU seconds that all processes have used since start-up.
        own: CPU seconds that this process and its children have used.
        steal: CPU seconds that the hypervisor gave to others.
        frequency_mhz: mean over the cores.
        load: processes that run or wait, mean of a minute.
        gpu: nvidia-smi's clocks, temperature, power and throttling.
        gpu_processes: ids of processes that compute on the GPU.
    """

    time: float
    busy: float
    own: float
    steal: float | None
    frequency_mhz: float | None
    load: float | None
    gpu: dict[str, str] | None = None
    gpu_processes: tuple[int, ...] = ()


def look(device: str) -> Snapshot:
    """Read the counters."""
    import psutil

    times = psutil.cpu_times()
    mine = psutil.Process().cpu_times()
    children = [_cpu_seconds(child) for child in psutil.Process().children(recursive=True)]
    frequency = psutil.cpu_freq() if hasattr(psutil, "cpu_freq") else None
    cuda = device.startswith("cuda")
    return Snapshot(
        time=time.monotonic(),
        busy=times.user + times.system + getattr(times, "nice", 0.0),
        own=mine.user + mine.system + sum(children),
        steal=getattr(times, "steal", None),
        frequency_mhz=frequency.current if frequency else None,
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        gpu=_gpu(device) if cuda else None,
        gpu_processes=_gpu_processes(device) if cuda else (),
    )


def compare(before: Snapshot, after: Snapshot) -> tuple[list[str], dict[str, Any]]:
    """Say what moved between two looks.

    Returns:
        Warnings for a person, empty on a quiet machine, and the figures.
    """
    cores = os.cpu_count() or 1
    available = max(after.time - before.time, 1e-9) * cores
    others = ((after.busy - before.busy) - (after.own - before.own)) / available
    warnings = []
    if others > _OTHERS:
        warnings.append(f"other processes used {others:.0%} of the processor")
    if before.load is not None and before.load > _LOAD * cores:
        warnings.append(f"the load average was {before.load:.1f} before the first sample")
    if before.steal is not None and after.steal is not None:
        steal = (after.steal - before.steal) / available
        if steal > _STEAL:
            warnings.append(f"the hypervisor took {steal:.0%} of the processor")
    if before.frequency_mhz and after.frequency_mhz:
        change = after.frequency_mhz / before.frequency_mhz - 1
        if abs(change) > _FREQUENCY:
            warnings.append(f"the processor's clock changed by {change:+.0%}")
    warnings += _gpu_warnings(before, after)
    return warnings, {"before": asdict(before), "after": asdict(after), "others": others}


def _gpu_warnings(before: Snapshot, after: Snapshot) -> list[str]:
    if not before.gpu or not after.gpu:
        return []
    warnings = [
        f"the GPU slowed down: {name.rpartition('.')[2].replace('_', ' ')}"
        for name, value in after.gpu.items()
        if name.endswith("slowdown") and value == "Active"
    ]
    strangers = {*before.gpu_processes, *after.gpu_processes} - {os.getpid()}
    if strangers:
        warnings.append(f"{len(strangers)} other processes computed on the GPU")
    return warnings


def _cpu_seconds(process: Any) -> float:
    import psutil

    try:
        times = process.cpu_times()
    except psutil.Error:  # it ended in the meantime
        return 0.0
    return float(times.user + times.system)


def _gpu(device: str) -> dict[str, str] | None:
    answer = _nvidia_smi(device, f"--query-gpu={','.join(_GPU_FIELDS)}")
    if answer is None:
        return None
    return dict(zip(_GPU_FIELDS, (part.strip() for part in answer.split(",")), strict=False))


def _gpu_processes(device: str) -> tuple[int, ...]:
    answer = _nvidia_smi(device, "--query-compute-apps=pid") or ""
    return tuple(int(line) for line in answer.split() if line.isdigit())


def _nvidia_smi(device: str, query: str) -> str | None:
    index = device.partition(":")[2] or "0"
    command = ["nvidia-smi", f"--id={index}", query, "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603 - fixed words
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
