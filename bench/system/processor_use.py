"""How much of the processor other processes used while something was timed."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from typing import Any

import psutil

from bench.system.devices import usable_processors

_BUSY = 0.1  # share of the processor used by others, above which times support no verdict


@dataclass(frozen=True)
class ProcessorUse:
    """Counters of the processor at one moment.

    Attributes:
        time: monotonic seconds.
        busy: CPU seconds that all processes have used since the machine started.
        own: CPU seconds that this process and its children have used.
        busy_here: as `busy`, of the logical processors that this process may use.
        processors: number of these.
    """

    time: float
    busy: float
    own: float
    busy_here: float
    processors: int


def read_processor_use() -> ProcessorUse:
    """Read the processor's counters."""
    processors = psutil.cpu_times(percpu=True)  # of those that are on, without their numbers
    known = set(range(len(processors)))
    numbered = len(processors) == os.cpu_count()
    usable = (known & (usable_processors() or known) if numbered else known) or known
    return ProcessorUse(
        time=time.monotonic(),
        busy=sum(map(_busy_seconds, processors)),
        busy_here=sum(_busy_seconds(processors[n]) for n in usable),
        processors=len(usable),
        # With children that have ended.
        own=sum(os.times()[:4]) + sum(map(_cpu_seconds, psutil.Process().children(recursive=True))),
    )


def share_of_others(before: ProcessorUse, after: ProcessorUse) -> float | None:
    """Return the share of the processor that other processes used in between, 0…1.

    It is that of all logical processors, or of those that this process may use if it is larger.
    None on Windows, which does not tell what processes have used that have ended.
    """
    if sys.platform == "win32":
        return None
    seconds, own = max(after.time - before.time, 1e-9), after.own - before.own
    shares = [
        (after.busy - before.busy - own) / (seconds * (os.cpu_count() or 1)),
        (after.busy_here - before.busy_here - own) / (seconds * after.processors),
    ]
    return max(shares)


def too_busy(share: float | None) -> str | None:
    """Say so if others used so much of the processor that times support no verdict.

    Args:
        share: of `share_of_others`; None if it is not known.
    """
    if (share or 0.0) > _BUSY:
        return f"other processes used {(share or 0.0) * 100:.0f} % of the processor"
    return None


def _busy_seconds(times: Any) -> float:
    return float(times.user + times.system + getattr(times, "nice", 0.0))


def _cpu_seconds(process: Any) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:  # it ended in the meantime
        return 0.0
    return float(times.user + times.system)
