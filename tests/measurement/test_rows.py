"""Rows of the `throughput` table from what processes measured: what is shown, and what is not."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from bench.measurement.backends import Executed
from bench.measurement.machine.ceiling import Ceiling
from bench.measurement.rows import make_rows, noise_floors
from bench.measurement.timing.runner import RunnerReport
from bench.measurement.timing.sampling import Goal
from bench.measurement.timing.warmup import WarmUp
from bench.networks.memory_traffic import Traffic

from .conftest import a_trial

SOURCE = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def own_noise(monkeypatch):
    """No test's data depend on which tests ran before it."""
    monkeypatch.setattr(sys.modules[__name__], "SOURCE", np.random.default_rng(0))


def measured(
    name: str, processes, *, reference: bool = False, twin: bool = False, repeats=(1,) * 24
):
    """A trial with a block of samples from each process; *processes* are their samples.

    *repeats* are the numbers of calls that the samples of each average.
    """
    trial = a_trial(name, None, "g", reference)
    trial.configuration = replace(trial.configuration, twin=twin)
    for number, (samples, calls) in enumerate(zip(processes, repeats, strict=False)):
        one = trial.fresh()
        one.blocks, one.positions = {0: list(samples)}, {0: 0}
        one.update_interval(always=True)
        one.report = RunnerReport(Executed(name, "fp32"), repeats=calls)
        trial.add_replicate(number, one)
        trial.attempts += 1
    return trial


def rows_of(*trials, ceiling: Ceiling | None = None) -> list[dict]:
    return make_rows(trials, measurement="m", cpu="A", goal=Goal(), ceiling=ceiling)


def around(seconds: float, *, spread: float = 0.001, processes: int = 6, samples: int = 20):
    return seconds * np.exp(SOURCE.normal(0, spread, (processes, samples)))


def test_a_warm_up_that_was_cut_short_in_one_process_is_a_warning():
    steady, unsteady = WarmUp((1.0, 1.0), True), WarmUp((2.0, 1.0), False)
    for place in range(6):
        trial = a_trial("eager", None, "g")
        for number, samples in enumerate(around(0.001)):
            one = trial.fresh()
            one.blocks, one.positions = {0: list(samples)}, {0: 0}
            one.update_interval(always=True)
            one.warm_up = unsteady if number == place else steady
            one.report = RunnerReport(Executed("eager", "fp32"), repeats=24)
            trial.add_replicate(number, one)
        (row,) = rows_of(trial)
        assert "warm-up was cut short" in row["warnings"]


def test_the_share_of_a_peak_that_was_exceeded_is_not_shown():
    # 10 multiply-adds in a millisecond are 20 kFLOP/s.
    trial = measured("eager", around(0.001))
    (row,) = rows_of(trial, ceiling=Ceiling({"fp32": 40e3}, 1e9, 8))
    assert row["peak_fraction"] == pytest.approx(0.5, rel=0.01)
    (row,) = rows_of(trial, ceiling=Ceiling({"fp32": 10e3}, 1e9, 8))
    assert row["peak_fraction"] is None
    assert "faster than this machine's measured peak" in row["warnings"]


def test_the_best_eager_is_the_fastest_way_in_fp32():
    slow, fast = measured("eager", around(0.002), reference=True), measured("eager", around(0.001))
    fast.configuration = replace(fast.configuration, memory_format="channels_last")
    *_, row = rows_of(slow, fast, measured("compile", around(0.0005)))
    assert row["best_eager"] == "eager fp32 channels_last"
    assert row["ratio"] == pytest.approx(4, rel=0.01)
    assert row["best_eager_ratio"] == pytest.approx(2, rel=0.01)
    assert row["best_eager_ratio_low"] < 2.01
    assert row["best_eager_ratio_high"] > 1.99


def test_the_intensity_is_of_the_whole_batch():
    """The weights are read once a batch, the activations once an image."""
    trial = measured("eager", around(0.001))
    target = replace(trial.configuration.target, macs=10, traffic=Traffic(100, 7))
    trial.configuration = replace(trial.configuration, target=target, batch_size=4)
    (row,) = rows_of(trial)
    assert row["arithmetic_intensity"] == 2 * 10 * 4 / (4 * (100 + 4 * 7))


@pytest.mark.parametrize(("processes", "scope"), [(6, "new process"), (5, "these processes")])
def test_the_bound_of_p99_contains_the_spread_between_enough_processes(processes, scope):
    speeds = np.linspace(0.9, 1.1, processes)[:, None]
    (row,) = rows_of(measured("eager", speeds * around(0.01, processes=processes, samples=120)))
    assert row["latency_p99_scope"] == scope
    slowest = 11  # milliseconds, the median of the slowest process
    if processes == 6:
        assert 1.05 * slowest < row["latency_p99_high_ms"] < 1.15 * slowest
    else:
        assert row["latency_p99_high_ms"] == pytest.approx(slowest, rel=0.01)
    (row,) = rows_of(measured("eager", around(0.01, samples=20)))
    assert (row.get("latency_p99_high_ms"), row.get("latency_p99_scope")) == (None, None)


@pytest.mark.parametrize("repeats", [(1, 2, 1, 1, 1, 1), (2, 1, 1, 1, 1, 1)])
def test_means_of_several_calls_are_no_latencies(repeats):
    times = around(0.001, samples=120)
    (row,) = rows_of(measured("eager", times))
    assert row["latency_p50_ms"] == pytest.approx(1, rel=0.01)
    (row,) = rows_of(measured("eager", times, repeats=repeats))
    assert row["images_per_second"] == pytest.approx(1000, rel=0.01)
    assert not any(name.startswith("latency_p") for name in row)


def test_times_that_are_time_slices_have_no_ratio():
    slices = 0.024 * SOURCE.integers(1, 4, (6, 20)) + SOURCE.normal(0, 1e-4, (6, 20))
    reference, sliced = measured("eager", around(0.03), reference=True), measured("null", slices)
    row = rows_of(reference, sliced)[1]
    assert row["noisy"]
    assert "ratio" not in row
    assert "the times are multiples of 24 ms" in row["warnings"]


def test_two_speeds_are_named_with_their_processes():
    trial = measured("eager", [*around(0.001, processes=4), *around(0.0012, processes=2)])
    (row,) = rows_of(trial)
    first, second = row["warnings"].split("two speeds (images/s): ")[1].split(" and ")
    assert float(first.split()[0]) == pytest.approx(1000, rel=0.01)
    assert first.endswith("in 4 processes")
    assert float(second.split()[0]) == pytest.approx(1000 / 1.2, rel=0.01)
    assert second.endswith("in 2 processes")


def test_the_noise_floor_is_how_far_a_twin_differs_over_all_processes():
    reference = measured("eager", around(0.001), reference=True)
    twin = measured("eager", around(0.00104), twin=True)
    near, far = (measured("onnxruntime", around(0.001 / by)) for by in (1.02, 1.2))
    trials = (reference, twin, near, far)
    assert noise_floors(trials)["g / batch  / compute"] == pytest.approx(0.04, abs=0.003)
    rows = rows_of(*trials)
    assert [row["difference"] for row in rows] == ["reference", "none", "faster"]
    assert rows[1]["ratio_low"] > 1  # significant, but no more than the reference from itself


def test_a_few_failures_among_many_processes_cost_their_replicates_only():
    trial = measured("eager", around(0.001, processes=22))
    for _ in range(2):
        trial.attempts += 1
        trial.add_failure("failed", "SIGABRT")
    (row,) = rows_of(trial)
    assert (row["status"], row["processes"]) == ("complete", 22)
    assert "22 of 24 processes complete" in row["warnings"]
    trial = measured("eager", around(0.001, processes=1))
    for _ in range(2):
        trial.attempts += 1
        trial.add_failure("failed", "SIGABRT")
    (row,) = rows_of(trial)
    assert (row["status"], row["error"]) == ("failed", "SIGABRT")


@pytest.mark.parametrize("error", ["SIGABRT", "it answers wrongly"])
def test_there_is_no_ratio_to_a_reference_that_failed(error):
    """It was complete in six processes, failed in seven, or answered wrongly in the last."""
    reference = measured("eager", around(0.001), reference=True)
    reference.status, reference.error = "failed", error
    failed, other = rows_of(reference, measured("onnxruntime", around(0.0005)))
    assert (failed["status"], failed["error"]) == ("failed", error)
    assert other["status"] == "complete"
    assert not {"ratio", "difference", "reference"} & other.keys()
    assert not other["noisy"]  # judged by its own interval


def test_one_shared_process_supports_no_claim():
    reference = measured("eager", around(0.001, processes=1), reference=True)
    fast = measured("onnxruntime", around(0.0005))
    for trial in (reference, fast):  # enough rounds for an interval within the process
        trial.replicates[0].blocks = dict(enumerate(around(trial.interval.median, processes=8)))
    row = rows_of(reference, fast)[1]
    assert (row["processes"], row["ratio_processes"], row["difference"]) == (6, 1, None)


def test_without_a_noise_floor_a_warning_says_why():
    reference = measured("eager", around(0.001), reference=True)
    twin = measured("eager", around(0.001), twin=True)
    twin.status, twin.error = "failed", "SIGABRT"
    rows = rows_of(reference, twin, measured("onnxruntime", around(0.0005)))
    assert [row["noise_floor"] for row in rows] == [None, None]
    assert all("no noise floor: the second measurement" in row["warnings"] for row in rows)


def test_a_ratio_is_over_the_processes_that_both_have():
    reference = measured("eager", around(0.001), reference=True)
    other = measured("onnxruntime", around(0.0005, processes=8))
    del reference.replicates[0]
    row = rows_of(reference, other)[1]
    assert (row["processes"], row["ratio_processes"], row["difference"]) == (8, 5, None)
