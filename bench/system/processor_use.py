"""How much of the processor other processes used while something was timed."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

import psutil

_BUSY = 0.1  # share of the processor used by others, above which times support no verdict


@dataclass(frozen=True)
class ProcessorUse:
    """Counters of the processor at one moment.

    Attributes:
        time: monotonic seconds.
        busy: CPU seconds that all processes have used since the machine started.
        own: CPU seconds that this process and its children have used.
    """

    time: float
    busy: float
    own: float


def read_processor_use() -> ProcessorUse:
    """Read the processor's counters."""
    times = psutil.cpu_times()
    process = psutil.Process()
    children = process.children(recursive=True)
    return ProcessorUse(
        time=time.monotonic(),
        busy=times.user + times.system + getattr(times, "nice", 0.0),
        # With children that have ended.
        own=sum(process.cpu_times()[:4]) + sum(map(_cpu_seconds, children)),
    )


def share_of_others(before: ProcessorUse, after: ProcessorUse) -> float:
    """Return the share of all cores that other processes used in between, 0…1."""
    available = max(after.time - before.time, 1e-9) * (os.cpu_count() or 1)
    return ((after.busy - before.busy) - (after.own - before.own)) / available


def too_busy(share: float | None) -> str | None:
    """Say so if others used so much of the processor that times support no verdict.

    Args:
        share: of `share_of_others`; None if it is not known.
    """
    if (share or 0.0) > _BUSY:
        return f"other processes used {(share or 0.0) * 100:.0f} % of the processor"
    return None


def _cpu_seconds(process: Any) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:  # it ended in the meantime
        return 0.0
    return float(times.user + times.system)
