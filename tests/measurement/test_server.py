"""The server scenario: arrivals, the search in one process, and intervals over processes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import bench
from bench.measurement.backends import Executed
from bench.measurement.rows import make_rows
from bench.measurement.timing.percentiles import nearest_rank
from bench.measurement.timing.runner import RunnerReport
from bench.measurement.timing.sampling import Goal
from bench.measurement.timing.server_scenario import arrivals, find_rate, highest_rate
from bench.measurement.timing.streams import Queries
from bench.measurement.timing.warmup import WarmUp
from bench.report.tables.throughput import footnotes
from bench.store.measurements import Measurements
from bench.store.tables import frames
from bench.store.tables.frames import throughput_frame

from .conftest import a_trial

BOUND_MS = 50.0


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


class Simulated:
    """A runner that answers each query in *service* seconds of a simulated clock."""

    def __init__(self, clock, service: float):
        self.clock, self.service = clock, service

    def warm_up(self, cap_seconds: float) -> WarmUp:
        del cap_seconds
        return WarmUp((self.service,), True)

    def serve(self, offsets, bound: float) -> list[float]:
        del bound
        return simulated(self.clock, self.service)(offsets)

    def describe(self) -> RunnerReport:
        return RunnerReport(Executed("fake", "fp32"))


def served(clock, *, processes: int, max_seconds: float = 120.0):
    """Two trials, the second of which answers twice as fast, over simulated processes."""
    trials = a_trial("eager", None, "g", True), a_trial("onnxruntime", None, "g")
    for trial in trials:
        trial.configuration = replace(
            trial.configuration, scenario="server", latency_bound_ms=BOUND_MS
        )
    for number in range(processes):
        for trial, service in zip(trials, (0.01, 0.005), strict=True):
            measured = trial.fresh()
            measured.runner = Simulated(clock, service)
            find_rate(measured, Goal(max_seconds=max_seconds), seed=number, on_event=lambda _: None)
            measured.runner = None
            trial.add_replicate(number, measured)
    return trials


def rows_of(trials) -> list[dict]:
    return make_rows(trials, measurement="m", cpu="A", goal=Goal(), ceiling=None)


def lines_below(rows: list[dict]) -> list[str]:
    return footnotes(frames.rows_of(throughput_frame(rows)))


def test_intervals_of_the_rate_are_over_processes_that_try_different_rates(clock):
    trials = served(clock, processes=6)
    rates = [1 / one.blocks[0][0] for one in trials[0].replicates.values()]
    assert len(set(rates)) == 6
    slow, fast = rows_of(trials)
    assert slow["images_per_second"] == pytest.approx(np.exp(np.mean(np.log(rates))))
    assert slow["ci_low"] < slow["images_per_second"] < slow["ci_high"]
    assert fast["difference"] == "faster"
    # More than twice the rate: the same bound lets the faster one use more of its capacity.
    assert fast["ratio"] == pytest.approx(fast["images_per_second"] / slow["images_per_second"])
    assert 2 < fast["ratio_low"] < fast["ratio"] < fast["ratio_high"]
    assert (slow["samples"], slow["processes"], slow["noisy"]) == (6 * 5 * 662, 6, False)
    assert slow["latency_p99_high_ms"] <= slow["latency_bound_ms"] == BOUND_MS
    # In the long run the rate keeps the bound, and one an eighth higher does not.
    for row, service in ((slow, 0.01), (fast, 0.005)):
        for factor, kept in ((0.9, True), (1.125, False)):
            rate = factor * row["images_per_second"]
            every = simulated(clock, service)(arrivals(rate, 20_000, 7))
            assert (nearest_rank(every, 0.99) * 1e3 <= BOUND_MS) == kept


def test_too_few_queries_and_too_few_processes_claim_nothing(clock):
    (slow, fast) = rows_of(served(clock, processes=2, max_seconds=2.0))
    assert slow["noisy"]
    assert "latency_p99_high_ms" not in slow
    noisy = "* noisy: too few queries for a p99; give more --max-seconds."
    assert noisy in lines_below([slow])
    assert noisy not in lines_below(rows_of(served(clock, processes=6)))
    assert fast["ratio"] > 1
    assert fast["difference"] is None
    assert any(
        "2 fresh processes of this run, too few for any claim" in x for x in lines_below([fast])
    )
    (_, fast) = rows_of(served(clock, processes=1))
    assert "ratio" not in fast
    assert "ci_low" not in fast


@pytest.mark.usefixtures("third_party")
def test_every_process_searches_and_a_rate_that_nothing_keeps_is_a_failure(tmp_path):
    server = {"scenario": "server", "backends": ("fine",), "processes": 2, "input_size": 16}
    server |= {"threads": 1, "device": "cpu", "max_seconds": 0.3, "results": tmp_path}
    row = bench.measure("resnet8", latency_bound_ms=1000.0, **server).iloc[0]
    assert (row["status"], row["processes"]) == ("complete", 2)
    assert row["ci_low"] < row["images_per_second"] < row["ci_high"]
    assert len(Measurements(tmp_path).find(row["measurement"]).processes) == 2
    row = bench.measure("resnet8", latency_bound_ms=0.01, **server).iloc[0]
    assert row["status"] == "failed"
    assert "the best p99 seen is" in row["error"]
