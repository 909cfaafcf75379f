"""Machine noise: what else happened while the samples were taken."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from bench.measurement.machine.nvml import MISSING, GpuState, open_gpu
from bench.system.processor_use import ProcessorUse, read_processor_use, share_of_others

if TYPE_CHECKING:
    from collections.abc import Sequence

# Changes that move a figure by about as much as the interval is to resolve.
_STEAL = 0.01
_OTHERS = 0.05
_FREQUENCY = 0.05
_TICKS = (0.1, 0.024, 0.01)  # seconds: a quota's period, and time slices of Linux
_NEAR, _MOST, _PEAK = 0.04, 0.8, 0.1
_TIME_SLICE = "a time slice: other programs or a quota decided them"


@dataclass(frozen=True)
class Snapshot(ProcessorUse):
    """The machine's counters at one moment; None is what cannot be read here.

    Attributes:
        steal: CPU seconds that the hypervisor gave to other machines.
        frequency_mhz: mean over the cores.
        load: mean number of processes that ran or waited in the last minute.
        device: what is measured.
        processes: ids of this process, its parent and its children.
        gpu: the GPU's state by NVML.
    """

    steal: float | None
    frequency_mhz: float | None
    load: float | None
    device: str = "cpu"
    processes: tuple[int, ...] = ()
    gpu: GpuState | None = None


def take_snapshot(device: str) -> Snapshot:
    """Read the machine's counters."""
    children = psutil.Process().children(recursive=True)
    frequency = None
    with contextlib.suppress(Exception):  # some virtual machines do not tell
        frequency = psutil.cpu_freq()
    gpu = open_gpu(device)
    return Snapshot(
        **asdict(read_processor_use()),
        steal=getattr(psutil.cpu_times(), "steal", None),
        frequency_mhz=frequency.current if frequency else None,
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        device=device,
        processes=(os.getpid(), os.getppid(), *(child.pid for child in children)),
        gpu=gpu.read() if gpu else None,
    )


def noise_between(before: Snapshot, after: Snapshot) -> tuple[list[str], dict[str, Any]]:
    """Compare two snapshots.

    Returns:
        Warnings, empty on a quiet machine, and the figures.
    """
    cores = os.cpu_count() or 1
    available = max(after.time - before.time, 1e-9) * cores
    others = share_of_others(before, after)
    warnings = []
    if others is not None and others > _OTHERS:
        warnings.append(f"other processes used {others * 100:.0f} % of the processor")
    if before.steal is not None and after.steal is not None:
        steal = (after.steal - before.steal) / available
        if steal > _STEAL:
            warnings.append(f"the hypervisor took {steal * 100:.0f} % of the processor")
    if before.frequency_mhz and after.frequency_mhz:
        change = after.frequency_mhz / before.frequency_mhz - 1
        if abs(change) > _FREQUENCY:
            warnings.append(f"the processor's clock changed by {change * 100:+z.0f} %")
    gpu = _gpu_warnings(before, after)
    figures = {"before": asdict(before), "after": asdict(after), "others": others, "gpu": gpu}
    return [*warnings, *gpu], figures


def _gpu_warnings(before: Snapshot, after: Snapshot) -> list[str]:
    """Warn of other processes on the GPU; its clocks are read after each block, for each row."""
    if not after.device.startswith("cuda"):
        return []
    if before.gpu is None or after.gpu is None:
        return [MISSING]
    seen = {*before.gpu.processes, *after.gpu.processes}
    ours = {*before.processes, *after.processes}
    if not seen & ours:  # in a container the driver reports the host's ids, which match none
        return []
    count = len(seen - ours)
    return [f"{count} other process(es) computed on the GPU"] if count else []


def scheduler_tick(seconds: Sequence[float]) -> float | None:
    """Return the tick of which most samples are multiples; None if there is none.

    On an overcommitted machine a program runs for whole time slices, and its times are multiples
    of them whatever it computes.

    Args:
        seconds: of each sample.
    """
    times = np.asarray(seconds)
    if not times.size:
        return None
    for tick in _TICKS:
        multiples = np.round(times / tick)
        near = (multiples >= 1) & (np.abs(times - multiples * tick) < _NEAR * tick)
        # One narrow peak may lie at a multiple by chance; two peaks hardly do.
        counts = Counter(multiples[near].tolist())
        if (
            near.mean() >= _MOST
            and len([n for n in counts.values() if n >= _PEAK * len(times)]) > 1
        ):
            return tick
    return None


def tick_warning(tick: float) -> str:
    """Return the warning that times are multiples of a tick, in seconds."""
    return f"the times are multiples of {tick * 1e3:g} ms, {_TIME_SLICE}"


def is_tick_warning(warning: str) -> bool:
    """Return whether a warning is one of `tick_warning`."""
    return warning.endswith(_TIME_SLICE)
