"""Latency percentiles, and the number of queries that each needs.

scipy is imported inside a function: `bench choose` needs the numbers only of some rows.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIDENCE = 0.99  # MLPerf inference's


@functools.cache
def honest_count(percentile: float) -> int:
    """Return the number of queries that a percentile needs: 11 for p50, 64 for p90, 662 for p99.

    MLPerf's early stopping (mlcommons/inference, `loadgen/early_stopping.cc`): the smallest
    number of queries among which, at 99 % confidence, one query slower than the percentile
    (its criterion needs at least one) shows that no more than 1 - p of all are.
    """
    from scipy.stats import nbinom

    # Queries that are not slower, before the second one that is; and these two.
    return int(nbinom.ppf(CONFIDENCE, 2, 1 - percentile)) + 2


def nearest_rank(latencies: Sequence[float], percentile: float) -> float | None:
    """Return a percentile by nearest rank, in the unit of *latencies*; None from too few."""
    if len(latencies) < honest_count(percentile):
        return None
    return float(np.quantile(latencies, percentile, method="inverted_cdf"))
