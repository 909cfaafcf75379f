from __future__ import annotations

import pytest

from bench.measurement.timing.percentiles import honest_count, nearest_rank


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
