"""The clock that times calls: wall time after synchronisation.

All backends are timed by it, so that no row of a comparison has another instrument than
its neighbour: events of torch's stream cannot time runtimes with streams of their own. `tools/gpu`
compares it with such events on a GPU; that has not been done yet.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable


class WallClock:
    """Wall time from when the device is idle (`synchronize` returns) until it is idle again.

    *before* is called, untimed, before each sample.
    """

    def __init__(
        self, synchronize: Callable[[], None], before: Callable[[], Any] = lambda: None
    ) -> None:
        self.synchronize, self.before = synchronize, before

    def measure(self, call: Callable[[], Any], repeats: int) -> float:
        """Return the mean seconds of calls made back to back, with a wait before and after."""
        synchronize, now = self.synchronize, time.perf_counter_ns
        self.before()
        synchronize()
        begin = now()
        for _ in range(repeats):
            call()
        synchronize()
        return (now() - begin) / repeats * 1e-9


def clear_l2(device: str) -> Callable[[], Any]:
    """Return what overwrites a CUDA device's second-level cache."""
    size = torch.cuda.get_device_properties(device).L2_cache_size
    scratch = torch.empty(2 * size, dtype=torch.int8, device=device)

    def clear() -> None:
        scratch.zero_()
        torch.cuda.synchronize(device)  # a runtime with a stream of its own would not wait

    return clear
