"""MLPerf's server scenario: Poisson arrivals, and the highest rate whose p99 keeps a bound."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.measurement.timing.percentiles import bounding_count, honest_count, larger_allowed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.measurement.timing.sampling import Goal
    from bench.measurement.timing.trial import Trial

_STEPS = 5  # of the bisection: the rate is known to a thirty-second of the capacity
_MOST_QUERIES = 4  # of a rate, times those that an honest p99 needs
_UNMEASURED = 0.25  # times the queries that count come before them: the queue begins empty
_MOST_ABOVE = 1.1  # times the capacity, at which the search may begin


def arrivals(rate: float, count: int, seed: int | Sequence[int]) -> list[float]:
    """Draw arrival times in seconds: Poisson arrivals, *rate* per second."""
    gaps = np.random.default_rng(seed).exponential(1 / rate, count)
    offsets: list[float] = np.cumsum(gaps).tolist()
    return offsets


def highest_rate(
    run: Callable[[float], float], capacity: float, bound: float
) -> tuple[float | None, list[tuple[float, float]]]:
    """Search for the highest rate whose p99 stays within a bound.

    Bisection keeps the rate whose p99 happened to be low, so it is run once more; if that misses
    the bound, the next lower rate is, and so on.

    Args:
        run: rate → p99 in seconds, from other arrivals each time.
        capacity: queries per second back to back, the upper limit of the rate.
        bound: of p99, in seconds.

    Returns:
        The rate, None if even a thirty-second of the capacity misses the bound; and every
        (rate, p99) that was tried. The last is the one that confirmed the rate.
    """
    low, high = 0.0, capacity
    tried = []
    for _ in range(_STEPS):
        rate = (low + high) / 2
        tried.append((rate, run(rate)))
        low, high = (rate, high) if tried[-1][1] <= bound else (low, rate)
    step = capacity / 2**_STEPS  # every rate is a multiple of it
    for multiple in range(round(low / step), 0, -1):
        tried.append((multiple * step, run(multiple * step)))
        if tried[-1][1] <= bound:
            return multiple * step, tried
    return None, tried


def find_rate(
    trial: Trial, goal: Goal, *, seed: int, on_event: Callable[[dict[str, Any]], None]
) -> None:
    """Find the highest rate that a trial sustains in this process: its only sample is 1 / rate.

    A rate keeps the bound if no more queries are slower than independent ones may be for p99 to
    keep it at 95 % confidence: 2 of 662. Latencies in a queue are not independent, so close to the
    capacity the rate is often a little too high (docs/why/measurement.md has how often).

    If no rate keeps it, the trial has failed, with p99 at the lowest in its error. If the time does
    not suffice for the 299 queries that a bound needs, p99 is that of the sample, and the row is
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
    counts: list[int] = []
    answered: list[int] = []

    def run(rate: float) -> float:
        on_event({"event": "server", "what": trial.name, "rate": rate})
        affordable = int(goal.max_seconds / (_STEPS + 1) * rate / (1 + _UNMEASURED))
        count = min(_MOST_QUERIES * honest_count(0.99), max(honest_count(0.9), affordable))
        unmeasured = round(_UNMEASURED * count)
        # The queries of one seed would be lucky at every rate, or at none.
        offsets = arrivals(rate, unmeasured + count, (seed, len(counts)))
        latencies = sorted(runner.serve(offsets, bound / 1e3, unmeasured))
        counts.append(count)
        answered.append(len(latencies))
        # If serving stopped early, more than so many were late.
        return float(latencies[-1 - larger_allowed(count, 0.99)])

    # Each process tries other rates, so that the interval over processes contains the step.
    limit = capacity * random.Random(seed).uniform(1, _MOST_ABOVE)  # noqa: S311 - nothing secret
    rate, tried = highest_rate(run, limit, bound / 1e3)
    trial.seconds_spent = time.monotonic() - begun
    trial.columns = {"samples": sum(answered)}
    if rate is None:
        trial.status = "failed"
        trial.error = (
            f"no rate keeps p99 below --max-latency-ms {bound:g} ms; "
            f"at the lowest rate tried, it was {tried[-1][1] * 1e3:.3g} ms"
        )
        return
    trial.blocks, trial.positions = {0: [1 / rate]}, {0: 0}
    trial.update_interval(always=True)
    if counts[-1] >= bounding_count(0.99):
        trial.columns["latency_p99_high_ms"] = tried[-1][1] * 1e3
