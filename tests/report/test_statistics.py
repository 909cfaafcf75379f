"""Intervals, paired differences and Holm's correction, against formulas and worked examples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from bench.report.findings.statistics import (
    BOOTSTRAP_SEEDS,
    Difference,
    estimate,
    holm,
    mcnemar,
    paired_difference,
    power,
    seeds_needed,
)

# Student 1908, table of additional hours of sleep (his own worked example, p. 20): the paired
# differences of two drugs in ten patients; mean 1.58, t = 4.06, p = 0.0028 (two-sided).
FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def by_seed(values: list[float]) -> dict[int, float]:
    return dict(enumerate(values))


def difference(p_value: float | None, low: float | None = 0.01, high: float | None = 0.03):
    return Difference(0.02, low, high, p_value, 3)


@pytest.mark.parametrize("values", [[0.9, 0.91], [0.9, 0.92, 0.85], list(np.linspace(0, 1, 11))])
def test_an_estimate_is_the_mean_and_its_t_interval(values: list[float]) -> None:
    found = estimate(values)
    n = len(values)
    half = stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n)
    assert found is not None
    assert found.seeds == n
    assert [found.low, found.mean, found.high] == pytest.approx(
        [np.mean(values) - half, np.mean(values), np.mean(values) + half]
    )


def test_three_seeds_have_the_interval_of_the_textbook() -> None:
    # t(0.975, 2) = 4.303 by any printed table; deviation 0.01, so ± 4.303 · 0.01 / √3.
    found = estimate([0.90, 0.91, 0.92])
    assert found is not None
    assert found.high == pytest.approx(0.91 + 4.3027 * 0.01 / 3**0.5, abs=1e-6)


def test_one_seed_has_no_interval() -> None:
    found = estimate([0.9])
    assert found is not None
    assert (found.mean, found.low, found.high, found.seeds) == (0.9, None, None, 1)
    single = paired_difference({0: 0.9}, {0: 0.8, 1: 0.7})
    assert single is not None
    assert single.mean == pytest.approx(0.1)
    assert (single.low, single.high, single.p_value, single.seeds) == (None, None, None, 1)
    assert not single.significant


def test_nothing_has_no_estimate() -> None:
    assert estimate([]) is None
    assert paired_difference({0: 0.9}, {1: 0.9}) is None
    assert paired_difference({}, {}) is None


def test_a_paired_difference_is_students_own_example() -> None:
    found = paired_difference(by_seed(SECOND), by_seed(FIRST))
    assert found is not None
    assert found.mean == pytest.approx(1.58)
    assert found.p_value == pytest.approx(0.00283, abs=1e-5)
    spread = np.std(np.subtract(SECOND, FIRST), ddof=1) / math.sqrt(10)
    half = 2.2622 * spread  # t(0.975, 9) by any printed table
    assert found.low == pytest.approx(1.58 - half, abs=1e-4)
    assert found.high == pytest.approx(1.58 + half, abs=1e-4)
    assert found.significant


def test_pairs_are_made_by_seed_and_not_by_position() -> None:
    ours, theirs = {2: 0.5, 0: 0.1, 1: 0.3}, {0: 0.0, 1: 0.2, 2: 0.5, 3: 0.9}
    found = paired_difference(ours, theirs)
    assert found is not None
    assert found.seeds == 3
    assert found.mean == pytest.approx((0.1 + 0.1 + 0.0) / 3)


def test_equal_values_are_not_significant() -> None:
    found = paired_difference(by_seed([0.5, 0.6]), by_seed([0.5, 0.6]))
    assert found is not None
    assert (found.mean, found.p_value, found.significant) == (0.0, 1.0, False)


def test_the_same_difference_in_every_seed_is_no_certainty() -> None:
    same = paired_difference(by_seed([0.503, 0.603]), by_seed([0.5, 0.6]))
    assert same is not None
    assert (same.low, same.high, same.p_value, same.significant) == (None, None, None, False)


def test_holm_corrects_as_in_the_worked_example() -> None:
    # Four hypotheses with p = 0.01, 0.04, 0.03, 0.005 (the example of Wikipedia's article on
    # the method): at 0.05 the first and the fourth are rejected, the others are not.
    corrected = holm(
        {n: difference(p) for n, p in zip("abcd", (0.01, 0.04, 0.03, 0.005), strict=True)}
    )
    values = [d.p_value for d in corrected.values() if d is not None]
    assert values == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert [d.significant for d in corrected.values() if d] == [True, False, False, True]


def test_holm_counts_only_what_was_tested() -> None:
    alone = holm({"a": difference(0.03), "b": None, "c": difference(None, None, None)})
    assert list(alone) == ["a", "b", "c"]
    assert alone["a"] == difference(0.03)
    assert alone["b"] is None
    assert alone["c"] == difference(None, None, None)
    assert holm({}) == {}


def test_holm_keeps_the_interval() -> None:
    (found,) = (d for d in holm({"a": difference(0.01)}).values() if d)
    assert (found.low, found.high, found.mean, found.seeds) == (0.01, 0.03, 0.02, 3)


@pytest.mark.parametrize(
    ("low", "high", "p_value", "significant"),
    [
        (0.01, 0.03, 0.049, True),
        (-0.03, -0.01, 0.049, True),
        (0.01, 0.03, 0.05, False),
        (0.01, 0.03, 0.2, False),
        (-0.01, 0.03, 0.01, False),
        (0.0, 0.03, 0.01, False),
        (None, None, None, False),
    ],
)
def test_a_difference_is_significant_by_interval_and_corrected_p_value(
    low: float | None, high: float | None, p_value: float | None, significant: bool
) -> None:
    assert difference(p_value, low, high).significant is significant


def test_the_effect_size_is_the_mean_over_the_deviation_of_the_differences() -> None:
    found = paired_difference(by_seed(SECOND), by_seed(FIRST))
    assert found is not None
    assert found.method == "t"
    # Student's t of 4.06 is d_z times the root of ten pairs.
    assert found.effect_size == pytest.approx(4.0621 / math.sqrt(10), abs=1e-4)


def test_many_seeds_have_a_bootstrap_interval() -> None:
    generator = np.random.default_rng(5)
    theirs = generator.normal(0.9, 0.01, BOOTSTRAP_SEEDS * 2)
    ours = theirs + generator.exponential(0.01, len(theirs))
    found = paired_difference(by_seed(list(ours)), by_seed(list(theirs)))
    assert found is not None
    assert found.method == "bootstrap"
    # The percentile bootstrap by hand, and the t-interval: near, and not the same.
    resampled = generator.choice(ours - theirs, (20_000, len(ours))).mean(axis=1)
    assert [found.low, found.high] == pytest.approx(np.quantile(resampled, [0.025, 0.975]), rel=0.1)
    # Every difference is above zero, so that hardly any flip of signs gives as large a mean.
    assert found.p_value == pytest.approx(2 / 10_000)
    fewer = paired_difference(
        by_seed(list(ours[: BOOTSTRAP_SEEDS - 1])), by_seed(list(theirs[: BOOTSTRAP_SEEDS - 1]))
    )
    assert fewer is not None
    assert fewer.method == "t"


def test_without_a_difference_the_bootstrap_finds_none() -> None:
    generator = np.random.default_rng(6)
    told = 0
    for _ in range(40):
        noise = generator.normal(0, 0.01, (2, BOOTSTRAP_SEEDS))
        found = paired_difference(by_seed(list(noise[0])), by_seed(list(noise[1])))
        told += found is not None and found.significant
    assert told <= 6  # 40 tries at 5 %: 7 or more happen once in 200


def test_power_is_that_of_the_worked_example() -> None:
    # G*Power 3.1 manual, "Means: difference between two dependent means": dz = 0.421637 and
    # 50 pairs at 0.05 two-sided have a power of 0.832114.
    assert power(0.421637, 50) == pytest.approx(0.832114, abs=1e-6)
    assert power(-0.421637, 50) == pytest.approx(0.832114, abs=1e-6)


@pytest.mark.parametrize("effect", [0.2, 0.5, 0.8, 1.5])
@pytest.mark.parametrize("comparisons", [1, 4])
def test_the_seeds_needed_are_the_first_with_enough_power(effect: float, comparisons: int) -> None:
    def noncentral(n: int) -> float:
        bound = stats.t.ppf(1 - 0.05 / comparisons / 2, n - 1)
        shifted = stats.nct(n - 1, effect * math.sqrt(n))
        return float(shifted.sf(bound) + shifted.cdf(-bound))

    needed = seeds_needed(effect, comparisons=comparisons)
    assert needed is not None
    assert noncentral(needed - 1) < 0.8 <= noncentral(needed)


def test_no_number_of_seeds_is_made_up() -> None:
    assert seeds_needed(None) is None
    assert seeds_needed(0.0) is None
    assert seeds_needed(1e-4) is None
    assert seeds_needed(50.0) == 2


def test_mcnemar_is_the_binomial_test_of_the_images_that_differ() -> None:
    ours = np.array([True] * 50 + [False] * 10 + [True] * 2 + [False] * 8)
    theirs = np.array([True] * 50 + [True] * 10 + [False] * 2 + [False] * 8)
    found = mcnemar(ours, theirs)
    assert (found.images, found.only_first, found.only_second) == (70, 2, 10)
    # 2 (1 + 12 + 66) / 2^12, by hand
    assert found.p_value == pytest.approx(2 * 79 / 4096)
    assert found.p_value == pytest.approx(stats.binomtest(2, 12).pvalue)
    assert mcnemar(theirs, ours).p_value == pytest.approx(found.p_value)
    assert mcnemar(ours, ours).p_value == 1.0
    with pytest.raises(ValueError, match="70 and 69 images"):
        mcnemar(ours, theirs[1:])


def bca_by_hand(values: np.ndarray, resamples: int) -> tuple[float, float]:
    """Efron 1987, section 2: bias correction z0, acceleration a from the jackknife."""
    generator = np.random.default_rng(99)
    means = generator.choice(values, (resamples, len(values))).mean(axis=1)
    z0 = stats.norm.ppf((means < values.mean()).mean())
    left_out = (values.sum() - values) / (len(values) - 1)
    u = left_out.mean() - left_out
    a = (u**3).sum() / (6 * (u**2).sum() ** 1.5)
    low, high = (
        np.quantile(means, stats.norm.cdf(z0 + (z0 + z) / (1 - a * (z0 + z))))
        for z in stats.norm.ppf([0.025, 0.975])
    )
    return low, high


def test_the_bootstrap_interval_is_efrons_bca_and_not_the_percentiles() -> None:
    generator = np.random.default_rng(8)
    values = generator.exponential(0.01, 24)  # skewed: the two intervals differ
    found = paired_difference(by_seed(list(values)), by_seed([0.0] * 24))
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    low, high = bca_by_hand(values, 200_000)
    spread = high - low
    # 9,999 resamples place an end within about 2 % of the interval's length.
    assert [found.low, found.high] == pytest.approx([low, high], abs=0.03 * spread)
    means = generator.choice(values, (200_000, 24)).mean(axis=1)
    plain = np.quantile(means, [0.025, 0.975])
    assert abs(plain[1] - high) > 0.05 * spread  # so that the test can tell them apart


def test_the_permutation_test_is_all_flips_of_signs_counted() -> None:
    generator = np.random.default_rng(9)
    values = generator.normal(0.004, 0.01, BOOTSTRAP_SEEDS)
    found = paired_difference(by_seed(list(values)), by_seed([0.0] * BOOTSTRAP_SEEDS))
    assert found is not None
    assert found.p_value is not None
    sums = np.zeros(1)
    for value in values:  # every one of 2^20 ways to choose signs
        sums = np.concatenate([sums + value, sums - value])
    exact = float((np.abs(sums) >= abs(values.sum()) - 1e-12).mean())
    error = math.sqrt(exact * (1 - exact) / 9_999)
    assert 0.01 < exact < 0.5
    assert found.p_value == pytest.approx(exact, abs=4 * error)
