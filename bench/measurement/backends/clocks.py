"""Clocks that time calls: wall time after synchronisation, or CUDA events."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable


class WallClock:
    """Wall time from when the device is idle (`synchronize` returns) until it is idle again."""

    def __init__(self, synchronize: Callable[[], None]) -> None:
        self.synchronize = synchronize

    def measure(self, call: Callable[[], Any], repeats: int) -> float:
        """Return the mean seconds of calls made back to back, with a wait before and after."""
        synchronize, now = self.synchronize, time.perf_counter_ns
        synchronize()
        begin = now()
        for _ in range(repeats):
            call()
        synchronize()
        return (now() - begin) / repeats * 1e-9


class CudaEventClock:
    """Events of a CUDA device, for work on torch's current stream.

    *clear_l2* overwrites the device's second-level cache before each sample.
    """

    def __init__(self, device: str, *, clear_l2: bool = False) -> None:
        self.device = torch.device(device)
        event: Any = torch.cuda.Event  # not annotated by torch
        self.begin, self.end = event(enable_timing=True), event(enable_timing=True)
        size = torch.cuda.get_device_properties(self.device).L2_cache_size if clear_l2 else 0
        self.scratch = torch.empty(2 * size, dtype=torch.int8, device=self.device)

    def measure(self, call: Callable[[], Any], repeats: int) -> float:
        """Return the mean seconds between two events around the calls."""
        cuda = torch.cuda
        self.scratch.zero_()
        cuda.synchronize(self.device)
        self.begin.record(cuda.current_stream(self.device))
        for _ in range(repeats):
            call()
        self.end.record(cuda.current_stream(self.device))
        cuda.synchronize(self.device)
        return float(self.begin.elapsed_time(self.end)) / repeats * 1e-3
