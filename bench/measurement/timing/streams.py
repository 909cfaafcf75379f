"""Several batches in flight at once, each in a thread of its own, as a server runs them."""

from __future__ import annotations

import itertools
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Streams:
    """Steps that run at the same time.

    The threads stay from one block to the next, since a runtime's own threads belong to them.

    Args:
        steps: each runs a batch and returns when it is done.
        enter: called in each thread before it begins, to set a library's number of threads.
    """

    def __init__(self, steps: Sequence[Callable[[], Any]], enter: Callable[[], None]) -> None:
        self._steps = steps
        self._enter = enter
        self._threads = ThreadPoolExecutor(len(steps), thread_name_prefix="bench-stream")

    def run(self, count: int) -> tuple[float, list[float]]:
        """Run *count* batches back to back, each on the next free stream.

        Returns:
            Seconds from the start of the first batch to the end of the last, and those of each.
        """
        numbers = itertools.count()
        latencies: list[float] = []

        def stream(step: Callable[[], Any], begun: float) -> None:
            del begun
            while next(numbers) < count:
                start = time.perf_counter()
                step()
                latencies.append(time.perf_counter() - start)

        return self._all(stream), latencies

    def serve(self, offsets: Sequence[float], bound: float = math.inf) -> list[float]:
        """Answer queries in the order of their arrival, each on the next free stream.

        Args:
            offsets: when each query arrives, in seconds from now.
            bound: latency in seconds; stop as soon as p99 can no longer be below it.

        Returns:
            Latencies: seconds from each query's arrival (not from its start) to its answer.
        """
        numbers, latencies, late = itertools.count(), list[float](), list[float]()
        allowed = len(offsets) - math.ceil(0.99 * len(offsets))

        def stream(step: Callable[[], Any], begun: float) -> None:
            while len(late) <= allowed and (number := next(numbers)) < len(offsets):
                arrival = begun + offsets[number]
                if (early := arrival - time.perf_counter()) > 0:
                    time.sleep(early)
                step()
                latency = time.perf_counter() - arrival
                latencies.append(latency)
                if latency > bound:
                    late.append(latency)

        self._all(stream)
        return latencies

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()

    def _all(self, stream: Callable[[Callable[[], Any], float], None]) -> float:
        """Run *stream* in every thread, begun at one moment; return the seconds until all ended."""
        begun: list[float] = []
        ready = threading.Barrier(
            len(self._steps), action=lambda: begun.append(time.perf_counter())
        )

        def work(step: Callable[[], Any]) -> None:
            self._enter()
            ready.wait()
            stream(step, begun[0])

        for future in [self._threads.submit(work, step) for step in self._steps]:
            future.result()
        return time.perf_counter() - begun[0]
