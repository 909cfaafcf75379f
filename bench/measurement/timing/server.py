"""MLPerf's server scenario: Poisson arrivals, and the highest rate whose p99 keeps a bound."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.measurement.timing.percentiles import honest_count

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.measurement.configurations import Request
    from bench.measurement.rows import Outcome

_STEPS = 5  # of the bisection: the rate is known to a thirty-second of the capacity


def arrivals(rate: float, count: int, seed: int) -> list[float]:
    """Draw when queries come: seconds from the start, at *rate* a second, exponential gaps."""
    gaps = np.random.default_rng(seed).exponential(1 / rate, count)
    offsets: list[float] = np.cumsum(gaps).tolist()
    return offsets


def serve(
    step: Callable[[], Any],
    offsets: list[float],
    bound: float = math.inf,
    *,
    now: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> list[float]:
    """Answer queries one after the other, in order of arrival.

    Args:
        step: answers one query and returns when the answer is there.
        offsets: when each query comes, seconds from now.
        bound: seconds; stop as soon as so many were later that p99 cannot keep it.
        now: a clock in seconds.
        sleep: waits for the next query.

    Returns:
        Seconds from each query's arrival (not from its start) to its answer.
    """
    begin = now()
    latencies: list[float] = []
    late, allowed = 0, len(offsets) - math.ceil(0.99 * len(offsets))
    for offset in offsets:
        early = begin + offset - now()
        if early > 0:
            sleep(early)
        step()
        latencies.append(now() - begin - offset)
        late += latencies[-1] > bound
        if late > allowed:
            break
    return latencies


def highest_rate(
    run: Callable[[float], float], capacity: float, bound: float
) -> tuple[float | None, list[tuple[float, float]]]:
    """Bisect for the highest rate whose p99 stays below a bound.

    Args:
        run: rate → p99 in seconds.
        capacity: queries a second back to back, which no rate can pass.
        bound: seconds.

    Returns:
        The rate, None if even a thirty-second of the capacity misses the bound; and every
        (rate, p99) that was tried.
    """
    low, high = 0.0, capacity
    tried = []
    for _ in range(_STEPS):
        rate = (low + high) / 2
        tried.append((rate, run(rate)))
        low, high = (rate, high) if tried[-1][1] <= bound else (low, rate)
    return (low or None), tried


def find_rate(
    outcome: Outcome, request: Request, on_event: Callable[[dict[str, Any]], None]
) -> None:
    """Find a configuration's rate and put it into its row, or the best p99 that was seen.

    With less time than the 662 queries of an honest p99 take, the row is noisy and its p99
    is withheld.
    """
    track, bound = outcome.track, request.latency_bound_ms
    assert track is not None  # noqa: S101 - there is a runner, says the caller
    assert bound is not None  # noqa: S101 - `Request` asked for it
    runner: Any = track.runner
    track.warm_up = runner.warm_up(request.max_seconds / 4)
    capacity = 1 / track.warm_up.typical
    honest = honest_count(0.99)
    affordable = int(request.max_seconds * capacity / _STEPS / 2)
    count = min(honest, max(honest_count(0.9), affordable))
    answered: list[int] = []

    def run(rate: float) -> float:
        on_event({"event": "server", "what": f"{rate:.3g} queries/s"})
        latencies = sorted(runner.serve(arrivals(rate, count, request.seed), bound / 1e3))
        answered.append(len(latencies))
        return float(latencies[math.ceil(0.99 * len(latencies)) - 1])

    rate, tried = highest_rate(run, capacity, bound / 1e3)
    outcome.extra = {"samples": sum(answered)}
    if rate is None:
        best = min(p99 for _, p99 in tried) * 1e3
        outcome.status = "failed"
        outcome.error = (
            f"no rate keeps p99 below --latency-bound {bound:g} ms; "
            f"the best p99 seen is {best:.3g} ms"
        )
        return
    p99 = next(p for r, p in tried if r == rate) * 1e3
    outcome.extra |= {
        "images_per_second": rate,
        "latency_p99_ms": p99 if count == honest else None,
        "noisy": count < honest,
    }
