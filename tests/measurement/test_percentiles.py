from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from bench.measurement.timing.percentiles import honest_count, nearest_rank, upper_bound


# Published by MLPerf: early stopping needs 64 queries for p90 and 662 for p99.
def test_counts_are_mlperfs():
    assert (honest_count(0.9), honest_count(0.99)) == (64, 662)


def test_a_percentile_from_too_few_samples_is_withheld():
    assert nearest_rank([1.0] * 40, 0.99) is None
    assert nearest_rank([1.0] * 63, 0.9) is None
    assert nearest_rank([1.0] * 64, 0.9) == 1.0


@pytest.mark.parametrize(("percentile", "expected"), [(0.5, 500), (0.9, 900), (0.99, 990)])
def test_nearest_rank(percentile, expected):
    assert nearest_rank(list(range(1000, 0, -1)), percentile) == expected


def test_the_bound_of_p99_covers_the_true_one_in_nineteen_of_twenty_samples():
    latencies = [float(i) for i in range(1, 663)]
    assert upper_bound([latencies], 0.99) == 660  # of 662
    assert upper_bound([latencies[:331], latencies[331:]], 0.99) == 660
    assert upper_bound([latencies[:200], latencies[200:298]], 0.99) is None
    source = np.random.default_rng(0)
    samples = source.exponential(size=(2000, 662))
    truth = -math.log(0.01)
    bounded = np.mean([upper_bound([sample], 0.99) >= truth for sample in samples])
    points = np.mean([nearest_rank(sample, 0.99) >= truth for sample in samples])
    assert bounded >= 0.945
    assert points < 0.6  # why a point is not enough


def _batches(source, shape, *, within, slow):
    """Draw latencies of processes of one speed; a share *slow* takes 1.5 to 3 times as long."""
    normal = np.exp(within * source.standard_normal(shape))
    return np.where(source.random(shape) < slow, normal * source.uniform(1.5, 3, shape), normal)


@pytest.mark.parametrize("slow", [0.0, 0.02])
@pytest.mark.parametrize("within", [0.005, 0.05])
@pytest.mark.parametrize("between", [0.01, 0.05])
@pytest.mark.parametrize("processes", [6, 24])
def test_the_bound_holds_for_the_p99_of_a_new_process(processes, between, within, slow):
    source = np.random.default_rng(0)
    truth = np.quantile(_batches(source, (300_000,), within=within, slow=slow), 0.99)
    covered, above = [], []
    for _ in range(200):
        batches = _batches(source, (processes, math.ceil(662 / 6)), within=within, slow=slow)
        speeds = np.exp(between * source.standard_normal((processes, 1)))
        bound = upper_bound(batches * speeds, 0.99)
        # The share of all new processes whose p99 it bounds.
        covered.append(norm.cdf(np.log(bound / truth) / between))
        above.append(np.log(bound / truth))
    assert np.mean(covered) >= 0.945
    # Not needlessly high: a known spread between processes alone would need 1.64 of it.
    most = norm.ppf(0.95) * between * 1.5 + (0.35 if slow else 0.7 * within)
    assert np.mean(above) < most


def test_fewer_than_six_processes_bound_their_own_p99_only():
    source = np.random.default_rng(0)
    processes = [source.exponential(size=200) * factor for factor in (0.5, 1, 1, 1, 2)]
    pooled = np.concatenate(processes)
    assert upper_bound(processes, 0.99) == upper_bound([pooled], 0.99)
    assert upper_bound([*processes, processes[0]], 0.99) > 1.5 * upper_bound([pooled], 0.99)
