from __future__ import annotations

import math

import numpy as np
import pytest

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
    assert upper_bound(latencies, 0.99) == 660  # of 662
    assert upper_bound(latencies[:298], 0.99) is None
    source = np.random.default_rng(0)
    samples = source.exponential(size=(2000, 662))
    truth = -math.log(0.01)
    bounded = np.mean([upper_bound(sample, 0.99) >= truth for sample in samples])
    points = np.mean([nearest_rank(sample, 0.99) >= truth for sample in samples])
    assert bounded >= 0.945
    assert points < 0.6  # why a point is not enough
