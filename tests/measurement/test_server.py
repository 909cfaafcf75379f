from __future__ import annotations

import numpy as np
import pytest

from bench.measurement.timing.percentiles import nearest_rank
from bench.measurement.timing.server_scenario import arrivals, highest_rate
from bench.measurement.timing.streams import Queries


def simulated(clock, service: float):
    def step() -> None:
        clock.now += service

    def sleep(seconds: float) -> None:
        clock.now += seconds

    def run(offsets) -> list[float]:
        queries = Queries(offsets, now=clock, sleep=sleep)
        queries.answer(step, clock())
        return queries.latencies

    return run


def test_arrivals_are_poisson():
    gaps = np.diff(arrivals(50.0, 20_000, 0))
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.03)
    assert gaps.std() == pytest.approx(1 / 50, rel=0.03)


def test_latency_counts_from_arrival_so_that_a_queue_is_seen(clock):
    assert simulated(clock, 1.0)([0.0, 0.0, 0.0]) == [1.0, 2.0, 3.0]


def test_mean_wait_is_queueing_theorys(clock):
    # M/D/1 (Pollaczek and Khinchine): wait = utilisation × service / (2 (1 - utilisation)).
    latencies = simulated(clock, 0.01)(arrivals(50.0, 100_000, 1))
    assert np.mean(latencies) == pytest.approx(0.01 + 0.5 * 0.01 / (2 * 0.5), rel=0.03)


def test_the_highest_rate_within_a_bound_is_found(clock):
    run = simulated(clock, 0.01)

    def p99(rate: float) -> float:
        return nearest_rank(run(arrivals(rate, 4000, 0)), 0.99)

    rate, tried = highest_rate(p99, 100.0, 0.05)
    assert 50 < rate < 95
    assert dict(tried)[rate] <= 0.05


def test_a_bound_that_nothing_reaches_gives_no_rate():
    rate, tried = highest_rate(lambda _: 0.02, 100.0, 0.01)
    assert rate is None
    assert len(tried) == 5
