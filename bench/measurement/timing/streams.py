"""Several batches in flight at once, each in a thread of its own, as a server runs them."""

from __future__ import annotations

import itertools
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from bench.measurement.timing.percentiles import larger_allowed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Queries:
    """Queries that arrive at known times, answered in the order of their arrival.

    Args:
        offsets: when each query arrives, in seconds from the beginning.
        bound: latency in seconds; stop as soon as p99 can no longer be shown to be within it.
        unmeasured: number of first queries that do not count: the queue is empty when they begin.
        now: a clock in seconds.
        sleep: waits.

    Attributes:
        latencies: seconds from each query's arrival (not from its start) to its answer.
    """

    def __init__(
        self,
        offsets: Sequence[float],
        bound: float = math.inf,
        unmeasured: int = 0,
        *,
        now: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._offsets, self._bound, self._unmeasured = offsets, bound, unmeasured
        self._now, self._sleep = now, sleep
        self._numbers, self._late = itertools.count(), list[float]()
        self._allowed = larger_allowed(len(offsets) - unmeasured, 0.99)
        self.latencies: list[float] = []

    def answer(self, step: Callable[[], Any], begun: float) -> None:
        """Answer one query after the other by *step*, which several threads may do at once."""
        while len(self._late) <= self._allowed:
            number = next(self._numbers)
            if number >= len(self._offsets):
                return
            arrival = begun + self._offsets[number]
            if (early := arrival - self._now()) > 0:
                self._sleep(early)
            step()
            if number < self._unmeasured:
                continue
            latency = self._now() - arrival
            self.latencies.append(latency)
            if latency > self._bound:
                self._late.append(latency)


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

    def serve(self, queries: Queries) -> None:
        """Answer queries in the order of their arrival, each on the next free stream."""
        self._all(queries.answer)

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
