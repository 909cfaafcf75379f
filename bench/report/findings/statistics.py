"""Means, differences by seed, their simultaneous intervals and tests.

All comparisons of a study, of test and of training accuracies, form one family. Each is tested at
the study's significance level divided by their number (Bonferroni), and its interval has the same
level, so that a p-value is below 0.05 exactly where the interval excludes zero. scipy is imported
when needed, because it takes longer to load than most commands take to run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from bench.report.findings.power import (
    SIGNIFICANCE,
    detectable_effect,
    seeds_needed,
    shift_interval,
    t_bound,
)
from bench.system.guessing import ROUNDING
from bench.system.intervals import CONFIDENCE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Values = Mapping[str, Mapping[int, float]]  # variant → seed → value
    Weights = Mapping[str, float]  # variant → weight

_TAILS = ((1 + CONFIDENCE) / 2, (1 - CONFIDENCE) / 2)  # quantiles for the ends of an interval

Test = Literal["paired", "welch"]
Doubt = Literal["pending", "missing", "secondary"]
Verdict = Doubt | Literal["significant", "equivalent", "one seed", "no spread", "undecided"]


@dataclass(frozen=True)
class Estimate:
    """A mean over random seeds.

    Attributes:
        mean: the mean.
        low: lower end of the 95 % t-interval; None for one seed, and where all values are equal.
        high: its upper end.
        seeds: number of seeds.
    """

    mean: float
    low: float | None
    high: float | None
    seeds: int

    @property
    def possible(self) -> tuple[float, float] | None:
        """The interval without what is no accuracy; None if there is none."""
        if self.low is None or self.high is None:
            return None
        return max(self.low, 0.0), min(self.high, 1.0)


@dataclass(frozen=True)
class Difference:
    """A variant's difference from its reference, or another weighted sum of variants.

    Attributes:
        mean: the weighted sum of the variants' means (+1 the variant, -1 its reference).
        seeds: number of seeds that all its variants have; of Welch's test, the smallest number.
        level: significance level of this one comparison.
        later_level: the same if seeds are added; None if it stays as it is.
        limit: the largest size that the difference can have, if all values are between 0 and 1.
        low: lower end of the interval, simultaneous over the study's family at 95 %; None for
            one seed, and where there is no spread.
        high: its upper end.
        p_value: two-sided, multiplied by the number of comparisons (Bonferroni), and by 0.05 over
            the level of this look: below 0.05 exactly where the interval excludes zero.
        deviation: standard deviation of the difference with a new seed.
        error: standard error of the mean.
        freedom: its degrees of freedom.
        groups: degrees of freedom per seed beyond the first, if all its variants have as many.
        correlation: of the two variants' values over seeds; None for fewer than three.
        doubt: why no claim may be made of it: `pending`, while runs that belong to it have not
            ended; `missing`, if it does not hold with chance accuracy in the place of results
            that the better side lacks and the best one found in that of the worse side's;
            `secondary`, if the study's primary comparison is not significant.
        alone: whether it is the study's primary comparison, whose interval does not belong to
            those of the others.
        incomplete: whether a variant lacks a seed that it should have or that another one has, so
            that no equivalence is claimed.
    """

    mean: float
    seeds: int
    level: float
    later_level: float | None
    limit: float
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    deviation: float | None = None
    error: float | None = None
    freedom: float | None = None
    groups: float = 1.0
    correlation: float | None = None
    doubt: Doubt | None = None
    alone: bool = False
    incomplete: bool = False

    @property
    def possible(self) -> tuple[float, float] | None:
        """The interval without what no accuracies can differ by; None if there is none."""
        if self.low is None or self.high is None:
            return None
        return max(self.low, -self.limit), min(self.high, self.limit)

    @property
    def significant(self) -> bool:
        """Whether the interval excludes zero, and nothing forbids to claim it."""
        return self.excludes_zero and self.doubt is None

    def withheld(self) -> Difference:
        """Return it without what would be a test, while runs that belong to it have not ended."""
        return Difference(
            self.mean, self.seeds, self.level, self.later_level, self.limit,
            doubt="pending", incomplete=True,
        )  # fmt: skip

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    def equivalent(self, margin: float | None) -> bool:
        """Return whether the interval lies between -margin and +margin (two one-sided tests)."""
        return (
            margin is not None
            and self.doubt is None
            and not self.incomplete
            and self.low is not None
            and self.high is not None
            and -margin < self.low <= self.high < margin
        )

    def verdict(self, margin: float | None) -> Verdict:
        """Return what is to be said: the doubt, else the claim, else why there is none."""
        if self.doubt is not None:
            return self.doubt
        if self.significant:
            return "significant"
        if self.equivalent(margin):
            return "equivalent"
        if self.deviation is None:
            return "one seed" if self.seeds == 1 else "no spread"
        return "undecided"

    @property
    def effect_size(self) -> float | None:
        """Mean over standard deviation: Cohen's d_z (Lakens 2013) of paired differences."""
        return self.mean / self.deviation if self.deviation else None

    @property
    def detectable(self) -> float | None:
        """The difference that would be significant with 80 % power at this number of seeds."""
        if self.error is None or self.freedom is None:
            return None
        groups = self.freedom / (self.seeds - 1)
        root = math.sqrt(self.seeds)
        return self.error * root * detectable_effect(self.seeds, self.level, groups)

    @property
    def superiority(self) -> Estimate | None:
        """The probability that a new seed's value is above zero, with its interval.

        It is that of normal values (Bouthillier et al. 2021 name it P(A > B)). The interval has the
        level of the difference's.
        """
        from scipy.special import ndtr

        if self.deviation is None or self.error is None or self.freedom is None:
            return None
        t, ratio = self.mean / self.error, self.error / self.deviation
        ends = shift_interval(t, self.freedom, self.level)
        mean, low, high = (float(ndtr(shift * ratio)) for shift in (t, *ends))
        return Estimate(mean, low, high, self.seeds)

    @property
    def seeds_needed(self) -> tuple[int | None, int | None] | None:
        """The fewest and the most seeds that 80 % power may need if `mean` is the true difference.

        They belong to the ends of the 80 % interval of the standard deviation. Always more than
        there are; None stands for more than `MOST_SEEDS`.
        """
        from scipy import stats

        if self.effect_size is None or self.freedom is None:
            return None
        few, many = (
            seeds_needed(
                self.effect_size * math.sqrt(stats.chi2.ppf(share, self.freedom) / self.freedom),
                level=self.later_level or self.level,
                there=self.seeds,
                groups=self.groups,
            )
            for share in (0.9, 0.1)
        )
        return few, many


def deviation(found: Estimate) -> tuple[float, float, float] | None:
    """Return the standard deviation over seeds, and its 95 % interval if values are normal (χ²).

    Args:
        found: the mean over seeds with its t-interval; without one there is no deviation.
    """
    from scipy import stats

    if found.low is None or found.high is None:
        return None
    freedom = found.seeds - 1
    half = (found.high - found.low) / 2
    value = half * math.sqrt(found.seeds) / t_bound(1 - CONFIDENCE, freedom)
    low, high = (value * math.sqrt(freedom / stats.chi2.ppf(p, freedom)) for p in _TAILS)
    return value, low, high


def variance_ratio(part: Estimate, whole: Estimate) -> tuple[float, float, float] | None:
    """Return the ratio of two variances over seeds, and its 95 % interval if values are normal (F).

    Args:
        part: the mean over seeds whose variance is divided.
        whole: that of other seeds, by whose variance it is divided.
    """
    from scipy import stats

    one, other = deviation(part), deviation(whole)
    if one is None or other is None:
        return None
    ratio = (one[0] / other[0]) ** 2
    freedom = part.seeds - 1, whole.seeds - 1
    low, high = (ratio / float(stats.f.ppf(p, *freedom)) for p in _TAILS)
    return ratio, low, high


def estimate(values: Sequence[float]) -> Estimate | None:
    """Return the mean of *values* with its t-interval; None without values."""
    if not len(values):
        return None
    mean, seeds = float(np.mean(values)), len(values)
    if seeds == 1 or np.ptp(values) < ROUNDING:
        return Estimate(mean, None, None, seeds)
    half = t_bound(1 - CONFIDENCE, seeds - 1) * float(np.std(values, ddof=1)) / math.sqrt(seeds)
    return Estimate(mean, mean - half, mean + half, seeds)


def compare(
    values: Values,
    weights: Weights,
    *,
    alpha: float = SIGNIFICANCE,
    later_alpha: float | None = None,
    members: int = 1,
    test: Test = "paired",
    chance: Mapping[str, float] | None = None,
    planned: Iterable[int] = (),
) -> Difference | None:
    """Test one comparison of a study.

    Args:
        values: variant → seed → value.
        weights: variant → weight. A variant that is compared with its reference has the
            weights +1 and -1; a difference of differences has four.
        alpha: significance level of all comparisons that are tested together.
        later_alpha: the same, once seeds have been added; None if it stays as it is.
        members: number of comparisons that share *alpha*.
        test: `paired` tests the weighted sum of each seed; `welch` treats the variants as
            independent samples of unequal variance (Welch 1947). If a result is missing, so that
            the samples differ in size, it has the degrees of freedom of the smallest, since
            Welch's would be wrong too often (Mickey and Brown 1966).
        chance: variant → the accuracy of guessing. It takes the place of results that the better
            side lacks, and the best accuracy found that of those that the worse side lacks; a
            difference that does not hold then is marked `missing`.
        planned: seeds that every variant should have; those that one has are added.

    Returns:
        The difference; None where no seed is common.
    """
    levels = alpha / members, None if later_alpha is None else later_alpha / members
    samples = {variant: values.get(variant, {}) for variant in weights}
    seeds = set(planned).union(*samples.values())
    found = _difference(samples, weights, test, *levels)
    if found is None:
        return None
    found = replace(found, incomplete=any(seeds - sample.keys() for sample in samples.values()))
    if not found.excludes_zero:
        return found
    sign = math.copysign(1, found.mean)
    best = max(value for sample in samples.values() for value in sample.values())
    instead = {v: (chance or {}).get(v, 0.0) if w * sign > 0 else best for v, w in weights.items()}
    filled = {
        variant: {**dict.fromkeys(seeds, instead[variant]), **sample}
        for variant, sample in samples.items()
    }
    other = _difference(filled, weights, test, *levels)
    if other is None or not other.excludes_zero or other.mean * sign < 0:
        return replace(found, doubt="missing")
    return found


def _difference(
    values: Values, weights: Weights, test: Test, level: float, later_level: float | None
) -> Difference | None:
    from scipy.special import stdtr

    samples = [values[variant] for variant in weights]
    factors = np.array(list(weights.values()))
    seeds = sorted(set.intersection(*map(set, samples)))
    columns = np.array([[sample[s] for s in seeds] for sample in samples])
    if test == "paired":
        count = len(seeds)
        parts = [(factors @ columns, 1.0)]
    else:
        count = min(map(len, samples))
        lists = (np.array(list(sample.values())) for sample in samples)
        parts = list(zip(lists, factors, strict=True))
    if not count:
        return None
    mean = float(sum(weight * sample.mean() for sample, weight in parts))
    found = Difference(
        mean,
        count,
        level,
        later_level,
        limit=float(np.abs(factors).sum()) / 2,  # the weights add up to 0
    )
    if count == 1:
        return found
    spreads = [(w * w * float(sample.var(ddof=1)), len(sample)) for sample, w in parts]
    whole = sum(spread for spread, _ in spreads)
    variance = sum(spread / n for spread, n in spreads)
    if math.sqrt(variance * count) < ROUNDING:  # no spread
        return found
    if len({n for _, n in spreads}) > 1:
        freedom = float(count - 1)
    else:  # Welch and Satterthwaite; of paired sums, n - 1
        freedom = variance**2 / sum((spread / n) ** 2 / (n - 1) for spread, n in spreads)
    error = math.sqrt(variance)
    half = t_bound(level, freedom) * error
    p_value = 2 * float(stdtr(freedom, -abs(mean / error)))
    return replace(
        found,
        low=mean - half,
        high=mean + half,
        p_value=min(1.0, p_value * SIGNIFICANCE / level),
        deviation=math.sqrt(whole),
        error=error,
        freedom=freedom,
        groups=whole**2 / sum(spread**2 for spread, _ in spreads),
        correlation=_correlation(columns),
    )


def _correlation(columns: np.ndarray) -> float | None:
    """Return the correlation of two rows; None for fewer than three values, or without spread."""
    rows, count = columns.shape
    if rows != 2 or count < 3 or not np.ptp(columns, axis=1).all():  # noqa: PLR2004
        return None
    return float(np.corrcoef(columns)[0, 1])


def failure_p_value(failed: int, runs: int, other_failed: int, other_runs: int) -> float:
    """Return the p-value of Fisher's exact test that two failure rates are equal (Fisher 1935)."""
    from scipy import stats

    table = np.array([[failed, runs - failed], [other_failed, other_runs - other_failed]])
    return float(stats.fisher_exact(table).pvalue)
