"""The server scenario: arrivals, the search in one process, and intervals over processes."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import brentq

import bench
from bench.measurement.backends import Executed
from bench.measurement.rows import make_rows
from bench.measurement.timing.percentiles import larger_allowed, nearest_rank
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

    def run(offsets, bound: float = math.inf, unmeasured: int = 0) -> list[float]:
        queries = Queries(offsets, bound, unmeasured, now=clock, sleep=sleep)
        queries.answer(step, clock())
        return queries.latencies

    return run


def test_arrivals_are_poisson():
    gaps = np.diff(arrivals(50.0, 20_000, 0))
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.03)
    assert gaps.std() == pytest.approx(1 / 50, rel=0.03)


def test_latency_counts_from_arrival_so_that_a_queue_is_seen(clock):
    assert simulated(clock, 1.0)([0.0, 0.0, 0.0]) == [1.0, 2.0, 3.0]


def test_the_first_queries_do_not_count_since_the_queue_is_empty_before_them(clock):
    run = simulated(clock, 1.0)
    assert run([0.0, 0.0, 0.0], unmeasured=1) == [2.0, 3.0]
    late = run([0.0] * 30 + [100.0 + 2 * i for i in range(300)], 1.5, unmeasured=30)
    assert late == [1.0] * 300  # the 29 that were late before do not end it


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


def test_the_rate_found_is_run_again_and_lowered_until_it_keeps_the_bound():
    once = {50.0: 0.9, 75.0: 2.0, 62.5: 2.0, 56.25: 2.0, 53.125: 2.0}
    again = {50.0: 2.0, 46.875: 2.0, 43.75: 0.8}
    found = iter([*once.items(), *again.items()])

    def run(rate: float) -> float:
        expected, p99 = next(found)
        assert rate == expected
        return p99

    rate, tried = highest_rate(run, 100.0, 1.0)
    assert rate == 43.75
    assert tried == [*once.items(), *again.items()]
    p99s = iter([0.9, *[2.0] * 100])
    assert highest_rate(lambda _: next(p99s), 100.0, 1.0)[0] is None


class Simulated:
    """A runner that answers each query in *service* seconds of a simulated clock.

    `served` holds the offsets, the number of first queries that do not count, and the latencies.
    """

    def __init__(self, clock, service: float):
        self.clock, self.service = clock, service
        self.served: list[tuple[list[float], int, list[float]]] = []

    def warm_up(self, cap_seconds: float) -> WarmUp:
        del cap_seconds
        return WarmUp((self.service,), True)

    def serve(self, offsets, bound: float, unmeasured: int) -> list[float]:
        latencies = simulated(self.clock, self.service)(offsets, bound, unmeasured)
        self.served.append((offsets, unmeasured, latencies))
        return latencies

    def describe(self) -> RunnerReport:
        return RunnerReport(Executed("fake", "fp32"))


def searched(clock, service: float, number: int, *, max_seconds: float, bound_ms=BOUND_MS):
    """A trial that searched in process *number*, and its runner."""
    trial = a_trial("eager", Simulated(clock, service), "g", True)
    trial.configuration = replace(trial.configuration, scenario="server", latency_bound_ms=bound_ms)
    find_rate(trial, Goal(max_seconds=max_seconds), seed=number, on_event=lambda _: None)
    return trial, trial.opened()


def served(clock, *, processes: int, max_seconds: float = 120.0):
    """Two trials, the second of which answers twice as fast, over simulated processes."""
    trials = a_trial("eager", None, "g", True), a_trial("onnxruntime", None, "g")
    for trial, service in zip(trials, (0.01, 0.005), strict=True):
        trial.configuration = replace(
            trial.configuration, scenario="server", latency_bound_ms=BOUND_MS
        )
        for number in range(processes):
            measured, _ = searched(clock, service, number, max_seconds=max_seconds)
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
    assert (slow["processes"], slow["noisy"]) == (6, False)
    assert 6 * 662 < slow["samples"] <= 6 * 12 * 2648  # where too many are late, serving ends
    assert slow["latency_p99_high_ms"] <= slow["latency_bound_ms"] == BOUND_MS
    # In the long run the rate keeps the bound, and one a quarter higher does not.
    for row, service in ((slow, 0.01), (fast, 0.005)):
        for factor, kept in ((1.0, True), (1.25, False)):
            rate = factor * row["images_per_second"]
            every = simulated(clock, service)(arrivals(rate, 20_000, 7))
            assert (nearest_rank(every, 0.99) * 1e3 <= BOUND_MS) == kept


@pytest.mark.parametrize("max_seconds", [5.0, 30.0, 120.0, 600.0])  # 64 to 2,648 queries of a rate
def test_a_rate_at_which_too_many_were_late_is_not_accepted(clock, max_seconds):
    # Serving ends at the first query that is one too many, however few were answered by then.
    for number in range(10):
        trial, runner = searched(clock, 0.01, number, max_seconds=max_seconds)
        offsets, unmeasured, latencies = runner.served[-1]
        rate = 1 / trial.blocks[0][0]
        count = min(2648, max(64, int(max_seconds / 6 * rate / 1.25)))
        assert unmeasured == pytest.approx(count / 4, abs=0.5)
        assert len(latencies) == len(offsets) - unmeasured == count
        assert offsets[-1] == pytest.approx(len(offsets) / rate, rel=0.5)
        assert sum(s * 1e3 > BOUND_MS for s in latencies) <= larger_allowed(count, 0.99)
        p99 = sorted(latencies)[-1 - larger_allowed(count, 0.99)] * 1e3  # of the run that confirmed
        assert trial.columns.get("latency_p99_high_ms") == (p99 if count >= 299 else None)


def test_every_rate_has_arrivals_of_its_own(clock):
    _, runner = searched(clock, 0.01, 0, max_seconds=600.0)
    shapes = [np.diff(offsets[:50]) / offsets[49] for offsets, _, _ in runner.served]
    assert len(shapes) >= 6
    assert all(not np.allclose(a, b) for a, b in itertools.combinations(shapes, 2))


def longest_wait(utilisation: float, share: float) -> float:
    """Return how many services the wait in an M/D/1 queue does not exceed in a share of queries.

    Its distribution is Erlang's (1909; Gross and Harris, "Fundamentals of queueing theory").
    """

    def missing(wait: float) -> float:
        terms = (
            (utilisation * (k - wait)) ** k
            / math.factorial(k)
            * math.exp(-utilisation * (k - wait))
            for k in range(int(wait) + 1)
        )
        return (1 - utilisation) * sum(terms) - share

    return brentq(missing, 0.0, 25.0)


# Bounds in services; the higher the rate, the longer a queue takes to become steady.
@pytest.mark.parametrize(("bound", "most"), [(3, 0.05), (5, 0.05), (10, 0.2)])
def test_few_rates_are_above_the_true_maximum(clock, bound, most):
    true = brentq(lambda rate: longest_wait(rate, 0.99) - (bound - 1), 0.05, 0.9) / 0.01
    found = []
    for number in range(100):
        trial, _ = searched(clock, 0.01, number, max_seconds=600.0, bound_ms=bound * 10)
        found.append(1 / trial.blocks[0][0])
    assert np.mean(np.array(found) > true) <= most
    assert 0.7 < np.exp(np.mean(np.log(found))) / true < 1


def test_too_few_queries_and_too_few_processes_claim_nothing(clock):
    (slow, fast) = rows_of(served(clock, processes=2, max_seconds=2.0))
    assert slow["noisy"]
    assert "latency_p99_high_ms" not in slow
    noisy = "* noisy: too few queries for a p99 (give more --max-seconds), or a process failed."
    assert noisy in lines_below([slow])
    assert noisy not in lines_below(rows_of(served(clock, processes=6)))
    assert fast["ratio"] > 1
    assert fast["difference"] is None
    few = "Intervals are over 2 fresh processes of this run, too few for any claim"
    assert any(line.startswith(few) for line in lines_below([fast]))
    del fast["latency_bound_ms"]  # of an older record
    assert any("stayed within the bound" in line for line in lines_below([fast]))
    assert not any(
        "new process" in line for line in lines_below(rows_of(served(clock, processes=6)))
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
    assert "at the lowest rate tried, it was" in row["error"]
