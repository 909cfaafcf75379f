"""MLPerf's server scenario: Poisson arrivals, and the highest rate whose p99 keeps a bound."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.measurement.timing.percentiles import bounding_count, honest_count, larger_allowed

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.measurement.timing.sampling import Goal
    from bench.measurement.timing.trial import Trial

_STEPS = 5  # of the bisection: the rate is known to a thirty-second of the capacity
_MOST_ABOVE = 1.1  # times the capacity, at which the search may begin


def arrivals(rate: float, count: int, seed: int) -> list[float]:
    """Draw arrival times in seconds: Poisson arrivals, *rate* per second."""
    gaps = np.random.default_rng(seed).exponential(1 / rate, count)
    offsets: list[float] = np.cumsum(gaps).tolist()
    return offsets


def highest_rate(
    run: Callable[[float], float], capacity: float, bound: float
) -> tuple[float | None, list[tuple[float, float]]]:
    """Search by bisection for the highest rate whose p99 stays within a bound.

    Args:
        run: rate → p99 in seconds.
        capacity: queries per second back to back, the upper limit of the rate.
        bound: of p99, in seconds.

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
    trial: Trial, goal: Goal, *, seed: int, on_event: Callable[[dict[str, Any]], None]
) -> None:
    """Find the highest rate that a trial sustains in this process: its only sample is 1 / rate.

    A rate keeps the bound if p99 does at 95 % confidence: at most 2 of 662 queries are slower. If
    none does, the trial has failed, with the best p99 in its error. If the time does not suffice
    for the 299 queries of a rate that such a bound needs, it is that of the sample, and the row is
    noisy and has no p99.

    Args:
        trial: open; filled in place.
        goal: its time, of one process.
        seed: of the arrivals, and of where the search begins.
        on_event: called with `server`.
    """
    begun, bound = time.monotonic(), trial.configuration.latency_bound_ms
    if bound is None:
        raise ValueError("the server scenario needs a latency bound")
    runner = trial.opened()
    trial.warm_up = runner.warm_up(goal.max_seconds / 4)
    capacity = trial.configuration.streams / trial.warm_up.typical
    affordable = int(goal.max_seconds * capacity / _STEPS / 2)
    count = min(honest_count(0.99), max(honest_count(0.9), affordable))
    answered: list[int] = []

    def run(rate: float) -> float:
        on_event({"event": "server", "what": trial.name, "rate": rate})
        latencies = sorted(runner.serve(arrivals(rate, count, seed), bound / 1e3))
        answered.append(len(latencies))
        return float(latencies[-1 - larger_allowed(len(latencies), 0.99)])

    # Each process tries other rates, so that the interval over processes contains the step.
    limit = capacity * random.Random(seed).uniform(1, _MOST_ABOVE)  # noqa: S311 - nothing secret
    rate, tried = highest_rate(run, limit, bound / 1e3)
    trial.seconds_spent = time.monotonic() - begun
    trial.columns = {"samples": sum(answered)}
    if rate is None:
        best = min(p99 for _, p99 in tried) * 1e3
        trial.status = "failed"
        trial.error = (
            f"no rate keeps p99 below --max-latency-ms {bound:g} ms; "
            f"the best p99 seen is {best:.3g} ms"
        )
        return
    trial.blocks, trial.positions = {0: [1 / rate]}, {0: 0}
    trial.update_interval(always=True)
    if count >= bounding_count(0.99):
        trial.columns["latency_p99_high_ms"] = dict(tried)[rate] * 1e3
