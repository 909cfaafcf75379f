"""Latency percentiles, and the number of queries that each needs.

scipy is imported inside a function: `bench choose` needs the numbers only of some rows.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np

from bench.system.intervals import FEWEST_PROCESSES

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIDENCE = 0.99  # MLPerf inference's
_BOUND = 0.95


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


def bounding_count(percentile: float) -> int:
    """Return the number of latencies whose largest bounds a percentile at 95 %: 299 for p99."""
    return math.ceil(math.log(1 - _BOUND) / math.log(percentile))


def nearest_rank(latencies: Sequence[float], percentile: float) -> float | None:
    """Return a percentile by nearest rank, in the unit of *latencies*; None from too few."""
    if len(latencies) < honest_count(percentile):
        return None
    return float(np.quantile(latencies, percentile, method="inverted_cdf"))


def upper_bound(processes: Sequence[Sequence[float]], percentile: float) -> float | None:
    """Return what a percentile does not exceed, at 95 % confidence, in the unit of the latencies.

    The percentile of a sample lies below the true one in about half of all samples. An order
    statistic, such as number 660 of 662 for p99, does so in one of twenty (Conover 1999, section
    3.2, for independent latencies). It bounds the percentile of these processes together.

    From six processes on, the bound is that of a new process: the order statistic of the latencies
    relative to the median of their process, times the upper 95 % prediction limit of a new
    process's median (t, of logarithms), and at least the bound of these processes. It assumes that
    processes differ in speed, not in the shape of the distribution.

    Args:
        processes: the latencies of each process.
        percentile: 0.99 for p99.

    Returns:
        None if even the largest latency does not bound it: from fewer than 299 for p99.
    """
    pooled = np.concatenate([np.asarray(one, dtype=np.float64) for one in processes])
    if len(pooled) < bounding_count(percentile):
        return None
    place = -1 - larger_allowed(len(pooled), percentile)
    bound, count = float(np.sort(pooled)[place]), len(processes)
    if count < FEWEST_PROCESSES:
        return bound
    from scipy.stats import t

    medians = np.array([np.median(one) for one in processes])
    relative = pooled / np.repeat(medians, [len(one) for one in processes])
    logs = np.log(medians)
    above = t.ppf(_BOUND, count - 1) * logs.std(ddof=1) * math.sqrt(1 + 1 / count)
    return max(bound, float(np.exp(logs.mean() + above) * np.sort(relative)[place]))


@functools.cache
def larger_allowed(count: int, percentile: float) -> int:
    """Return how many of *count* latencies may be larger than what a percentile is to stay within.

    It is at 95 % confidence, for p99 2 of 662; from fewer than `upper_bound` needs, as many as lie
    above the percentile of the sample.
    """
    from scipy.stats import binom

    larger = count - int(binom.ppf(_BOUND, count, percentile)) - 1
    return larger if larger >= 0 else count - math.ceil(percentile * count)
