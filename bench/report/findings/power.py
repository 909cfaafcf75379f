"""Power of t-tests: which difference a number of seeds can find, and how many one needs.

scipy is imported when needed, because it takes longer to load than most commands take to run.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache

import numpy as np

SIGNIFICANCE = 0.05  # not 1 - 0.95, which is a little more in floating point
POWER = 0.8
MOST_SEEDS = 50  # more would be false precision
_NODES = 200  # of the integral over the χ² distribution


def t_bound(level: float, freedom: float) -> float:
    """Return the size above which t is significant at a two-sided level."""
    from scipy.special import stdtrit

    return float(-stdtrit(freedom, level / 2))


@cache
def _legendre() -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(_NODES)


@lru_cache(maxsize=512)
def _chi(freedom: float) -> tuple[np.ndarray, np.ndarray]:
    """Return values of √(χ²/df) and their probabilities: Gauss-Legendre nodes of its quantiles."""
    from scipy.special import chdtri

    nodes, weights = _legendre()
    return np.sqrt(chdtri(freedom, (1 - nodes) / 2) / freedom), weights / 2


def _tail(t: float, freedom: float, shift: float) -> float:
    """Return P(T > t) of the noncentral t distribution, by integrating over χ²."""
    from scipy.special import ndtr

    values, weights = _chi(freedom)
    return float(ndtr(shift - t * values) @ weights)


def shift_interval(t: float, freedom: float, level: float) -> tuple[float, float]:
    """Return the shifts of the noncentral t distribution that a value of t is compatible with."""
    from scipy.optimize import brentq

    def end(share: float) -> float:
        def excess(shift: float) -> float:
            return _tail(t, freedom, shift) - share

        reach = 10.0
        while excess(t - reach) > 0 or excess(t + reach) < 0:
            reach *= 2
        return float(brentq(excess, t - reach, t + reach, xtol=1e-6))

    return end(level / 2), end(1 - level / 2)


def power(
    effect_size: float, seeds: int, *, level: float = SIGNIFICANCE, groups: float = 1
) -> float:
    """Return the probability that a t-test finds a true difference of this size significant.

    It is the mean of the normal tail probabilities over the χ² distribution of the variance,
    which is finite everywhere.

    Args:
        effect_size: true difference over the standard deviation; Cohen's d_z for paired seeds.
        seeds: number of seeds, 2 or more.
        level: significance level of this comparison: 0.05 over the number of comparisons.
        groups: degrees of freedom per seed beyond the first; 1 for paired differences.
    """
    freedom = groups * (seeds - 1)
    bound, shift = t_bound(level, freedom), abs(effect_size) * math.sqrt(seeds)
    return _tail(bound, freedom, shift) + _tail(bound, freedom, -shift)


@lru_cache(maxsize=512)
def detectable_effect(seeds: int, level: float, groups: float) -> float:
    """Return the effect size that is found with 80 % power; parameters as those of `power`."""
    from scipy.optimize import brentq

    def lack(effect: float) -> float:
        return power(effect, seeds, level=level, groups=groups) - POWER

    high = 1.0
    while lack(high) < 0:
        high *= 2
    return float(brentq(lack, 0, high, xtol=1e-6))


def seeds_needed(
    effect_size: float, *, level: float = SIGNIFICANCE, there: int = 1, groups: float = 1
) -> int | None:
    """Return the smallest number of seeds above *there* with 80 % power at this effect size.

    Returns:
        None if more than `MOST_SEEDS` are needed.
    """
    if not effect_size:
        return None
    counts = range(max(2, there + 1), MOST_SEEDS + 1)
    return next(
        (n for n in counts if power(effect_size, n, level=level, groups=groups) >= POWER), None
    )
