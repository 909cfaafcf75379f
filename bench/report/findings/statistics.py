"""Means, paired differences, their intervals, tests and power, by scipy and statsmodels.

Every statistic of a report is computed here; scipy and statsmodels are imported when needed,
because they take longer to load than most commands take to run.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from bench.system.mcnemar import mcnemar_p_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CONFIDENCE = 0.95
SIGNIFICANCE = 0.05  # not 1 - CONFIDENCE, which is a little more in floating point
POWER = 0.8
MOST_SEEDS = 1000  # more is no practical advice
BOOTSTRAP_SEEDS = 20  # a bootstrap of fewer values is too narrow
RESAMPLES = 9_999

Method = Literal["t", "bootstrap"]


@dataclass(frozen=True)
class Estimate:
    """A mean over random seeds.

    Attributes:
        mean: the mean.
        low: lower end of the 95 % t-interval; None for one seed.
        high: its upper end.
        seeds: number of seeds.
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
        low: lower end of the 95 % interval; None for one seed, and where all differences are
            the same.
        high: its upper end.
        p_value: two-sided; `holm` returns it Holm-corrected.
        seeds: number of pairs.
        effect_size: mean over the standard deviation of the differences (Cohen's d_z, as
            Lakens 2013 names it); None where there is no spread.
        method: `t` (paired t-test and its interval) or, from `BOOTSTRAP_SEEDS` pairs on,
            `bootstrap` (BCa interval, Efron 1987; p-value of the sign-flip permutation test).
    """

    mean: float
    low: float | None
    high: float | None
    p_value: float | None
    seeds: int
    effect_size: float | None = None
    method: Method = "t"

    @property
    def significant(self) -> bool:
        """Whether the interval excludes zero and the corrected p-value is below 0.05."""
        if self.low is None or self.high is None or self.p_value is None:
            return False
        return (self.low > 0 or self.high < 0) and self.p_value < SIGNIFICANCE


@dataclass(frozen=True)
class Discordance:
    """Two trained networks on the same test images (McNemar 1947).

    Attributes:
        images: number of images.
        only_first: images that only the first network classifies correctly.
        only_second: images that only the second network classifies correctly.
        p_value: of the exact two-sided test; the null hypothesis is that both numbers differ by
            chance only.
    """

    images: int
    only_first: int
    only_second: int
    p_value: float


def estimate(values: Sequence[float]) -> Estimate | None:
    """Return the mean of *values* with its t-interval; None without values."""
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
    """Return the difference between two variants over the seeds that both have; None without one.

    Args:
        variant: seed → value.
        reference: seed → value.
    """
    seeds = sorted(variant.keys() & reference.keys())
    if not seeds:
        return None
    differences = np.array([variant[s] - reference[s] for s in seeds])
    mean = float(differences.mean())
    if len(seeds) == 1:
        return Difference(mean, None, None, None, 1)
    if np.allclose(differences, mean, rtol=0, atol=1e-12):  # up to rounding
        # No spread at all, which happens with few test images: a t-test would divide by zero.
        if mean == 0:
            return Difference(mean, 0.0, 0.0, 1.0, len(seeds))
        return Difference(mean, None, None, None, len(seeds))
    method: Method = "t" if len(seeds) < BOOTSTRAP_SEEDS else "bootstrap"
    low, high, p_value = (_t if method == "t" else _bootstrap)(differences)
    effect = mean / float(differences.std(ddof=1))
    return Difference(mean, low, high, p_value, len(seeds), effect, method)


def _t(differences: np.ndarray) -> tuple[float, float, float]:
    from scipy import stats

    test = stats.ttest_1samp(differences, 0.0)
    interval = test.confidence_interval(CONFIDENCE)
    return float(interval.low), float(interval.high), float(test.pvalue)


def _bootstrap(differences: np.ndarray) -> tuple[float, float, float]:
    from scipy import stats

    interval = stats.bootstrap(
        (differences,),
        np.mean,
        confidence_level=CONFIDENCE,
        method="BCa",
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(0),  # the same runs give the same report
    ).confidence_interval
    # One sample with `permutation_type="samples"` flips signs at random.
    test = stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        n_resamples=RESAMPLES,
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    return float(interval.low), float(interval.high), float(test.pvalue)


def holm(differences: Mapping[str, Difference | None]) -> dict[str, Difference | None]:
    """Correct the p-values of one study's comparisons by Holm's method (Holm 1979)."""
    tested = {k: d for k, d in differences.items() if d is not None and d.p_value is not None}
    corrected = holm_values([d.p_value for d in tested.values() if d.p_value is not None])
    changed = {
        name: replace(difference, p_value=p)
        for (name, difference), p in zip(tested.items(), corrected, strict=True)
    }
    return {**differences, **changed}


def holm_values(p_values: Sequence[float]) -> list[float]:
    """Correct p-values by Holm's method (Holm 1979), in the order given."""
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(p_values, method="holm")[1]] if p_values else []


def power(effect_size: float, seeds: int, *, comparisons: int = 1) -> float:
    """Return the probability that a paired t-test finds a true difference of this size significant.

    Args:
        effect_size: Cohen's d_z.
        seeds: number of pairs, 2 or more.
        comparisons: number of comparisons in the study; each is tested at 0.05 divided by it,
            which is Holm's threshold for the smallest p-value.
    """
    from statsmodels.stats.power import TTestPower

    return float(TTestPower().power(abs(effect_size), seeds, SIGNIFICANCE / comparisons))


def seeds_needed(effect_size: float | None, *, comparisons: int = 1) -> int | None:
    """Return the smallest number of seeds with 80 % power, if the observed effect is the true one.

    Returns:
        None if there is no effect size, or if more than `MOST_SEEDS` are needed.
    """
    if not effect_size:
        return None
    counts = range(2, MOST_SEEDS + 1)
    place = bisect.bisect_left(
        counts, POWER, key=lambda n: power(effect_size, n, comparisons=comparisons)
    )
    return counts[place] if place < len(counts) else None


def mcnemar(first: np.ndarray, second: np.ndarray) -> Discordance:
    """Compare two networks' predictions on the same images by McNemar's exact test.

    The test is about these two trained networks, not about the design choice: it does not
    include the variation between random seeds (Dietterich 1998).

    Args:
        first: whether the first network is right, one boolean per image.
        second: the same of the second network, in the same order.

    Raises:
        ValueError: they are of different length.
    """
    if first.shape != second.shape:
        raise ValueError(f"predictions of {len(first)} and {len(second)} images: not the same")
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    p_value = mcnemar_p_value(only_first, only_second)
    return Discordance(len(first), only_first, only_second, p_value)


def counted(number: int, what: str) -> str:
    """Return a number with its noun, such as `1 seed` or `3 seeds`."""
    return f"{number} {what}{'' if number == 1 else 's'}"
