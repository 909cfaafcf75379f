"""Means, paired differences and their intervals, by scipy and statsmodels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CONFIDENCE = 0.95
SIGNIFICANCE = 0.05  # not 1 - CONFIDENCE, which is a little more in floating point


@dataclass(frozen=True)
class Estimate:
    """A mean over random seeds.

    Attributes:
        mean: the mean.
        low: lower end of the 95 % t-interval; None for one seed, where none can be made.
        high: its upper end.
        seeds: how many seeds.
    """

    mean: float
    low: float | None
    high: float | None
    seeds: int


@dataclass(frozen=True)
class Difference:
    """A variant's difference from its reference, paired by seed.

    Attributes:
        mean: mean of (variant - reference) over the seeds that both have.
        low: lower end of the 95 % interval of the paired t-test; None for one seed, and where
            all differences are the same.
        high: its upper end.
        p_value: two-sided, of the paired t-test; Holm-corrected once `holm` has seen it.
        seeds: number of pairs.
    """

    mean: float
    low: float | None
    high: float | None
    p_value: float | None
    seeds: int

    @property
    def told_apart(self) -> bool:
        """Whether zero lies outside the interval and the corrected p-value is below 0.05."""
        if self.low is None or self.high is None or self.p_value is None:
            return False
        return (self.low > 0 or self.high < 0) and self.p_value < SIGNIFICANCE


def estimate(values: Sequence[float]) -> Estimate | None:
    """Mean of *values* with its t-interval; None without values."""
    from scipy import stats

    if not len(values):
        return None
    mean = float(np.mean(values))
    if len(values) == 1:
        return Estimate(mean, None, None, 1)
    if np.ptp(values) == 0:
        return Estimate(mean, mean, mean, len(values))
    interval = stats.ttest_1samp(values, 0.0).confidence_interval(CONFIDENCE)
    return Estimate(mean, float(interval.low), float(interval.high), len(values))


def paired_difference(
    variant: Mapping[int, float], reference: Mapping[int, float]
) -> Difference | None:
    """Difference between two variants over the seeds that both have; None without one.

    Args:
        variant: seed → value.
        reference: seed → value.
    """
    from scipy import stats

    seeds = sorted(variant.keys() & reference.keys())
    ours = np.array([variant[s] for s in seeds])
    theirs = np.array([reference[s] for s in seeds])
    if not seeds:
        return None
    differences = ours - theirs
    mean = float(differences.mean())
    if len(seeds) == 1:
        return Difference(mean, None, None, None, 1)
    if np.allclose(differences, mean, rtol=0, atol=1e-12):  # but for rounding
        # No spread at all, as few test images can give: a t-test would be certain of anything.
        if mean == 0:
            return Difference(mean, 0.0, 0.0, 1.0, len(seeds))
        return Difference(mean, None, None, None, len(seeds))
    test = stats.ttest_rel(ours, theirs)
    interval = test.confidence_interval(CONFIDENCE)
    return Difference(
        mean, float(interval.low), float(interval.high), float(test.pvalue), len(seeds)
    )


def holm(differences: Mapping[str, Difference | None]) -> dict[str, Difference | None]:
    """Correct the p-values of one study's comparisons by Holm's method (Holm 1979)."""
    from statsmodels.stats.multitest import multipletests

    tested = {k: d for k, d in differences.items() if d is not None and d.p_value is not None}
    if not tested:
        return dict(differences)
    corrected = multipletests([d.p_value for d in tested.values()], method="holm")[1]
    changed = {
        name: replace(difference, p_value=float(p))
        for (name, difference), p in zip(tested.items(), corrected, strict=True)
    }
    return {**differences, **changed}
