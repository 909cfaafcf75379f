"""Intervals, differences and Bonferroni's correction, against formulas and worked examples."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import builders
from bench.report.findings.agreement import mcnemar
from bench.report.findings.looks import level_of_look
from bench.report.findings.power import power, seeds_needed
from bench.report.findings.statistics import Difference, estimate

# Student 1908, table of additional hours of sleep (his own worked example, p. 20): the paired
# differences of two drugs in ten patients; mean 1.58, t = 4.06, p = 0.0028 (two-sided).
FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def by_seed(values: list[float]) -> dict[int, float]:
    return dict(enumerate(values))


def paired_difference(
    variant: dict[int, float], reference: dict[int, float], others: int = 0
) -> Difference | None:
    """Compare two variants, in a family with so many others."""
    values = {"b": variant, "a": reference}
    more = {f"c{n}": {"b": 1.0, "a": -1.0} for n in range(others)}
    return builders.compare_all(values, {"b": {"b": 1.0, "a": -1.0}, **more})["b"]


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


@pytest.mark.parametrize("shift", [0.0, 0.003])
def test_the_same_difference_in_every_seed_is_no_certainty(shift: float) -> None:
    same = paired_difference(by_seed([0.5 + shift, 0.6 + shift]), by_seed([0.5, 0.6]))
    assert same is not None
    assert same.mean == pytest.approx(shift)
    assert (same.low, same.high, same.p_value, same.significant) == (None, None, None, False)


def test_equal_values_have_no_interval() -> None:
    found = estimate([1.0, 1.0, 1.0])
    assert found is not None
    assert (found.mean, found.low, found.high, found.seeds) == (1.0, None, None, 3)


@pytest.mark.parametrize("others", [0, 1, 7])
def test_interval_and_p_value_are_bonferronis(others: int) -> None:
    alone = stats.ttest_1samp(np.subtract(SECOND, FIRST), 0.0)
    found = paired_difference(by_seed(SECOND), by_seed(FIRST), others)
    assert found is not None
    assert found.p_value == pytest.approx(min(1, alone.pvalue * (1 + others)))
    interval = alone.confidence_interval(1 - 0.05 / (1 + others))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_a_p_value_is_below_5_percent_exactly_where_the_interval_excludes_zero() -> None:
    generator = np.random.default_rng(4)
    decided = set()
    for _ in range(300):
        values = generator.normal(generator.choice([0, 2]), 1, (2, 4))
        values[1] += generator.choice([0, 1.5])
        found = paired_difference(by_seed(list(values[0])), by_seed(list(values[1])), 1)
        assert found is not None
        assert found.p_value is not None
        assert found.significant is (found.p_value < 0.05)
        decided.add(found.significant)
    assert decided == {True, False}


def test_the_correlation_is_numpys() -> None:
    values = {"a": by_seed(FIRST), "b": by_seed(SECOND)}
    found = builders.compare_all(values, {"b": {"b": 1.0, "a": -1.0}})["b"]
    assert found is not None
    assert found.correlation == pytest.approx(np.corrcoef(FIRST, SECOND)[0, 1])


def test_welchs_test_is_scipys() -> None:
    values = {"a": by_seed(FIRST), "b": by_seed(SECOND)}
    found = builders.compare_all(values, {"b": {"b": 1.0, "a": -1.0}}, test="welch")["b"]
    expected = stats.ttest_ind(SECOND, FIRST, equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert found is not None
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_welchs_test_of_samples_of_unequal_size_has_the_freedom_of_the_smaller() -> None:
    values = {"a": by_seed(FIRST), "b": by_seed(SECOND[:7])}
    found = builders.compare_all(values, {"b": {"b": 1.0, "a": -1.0}}, test="welch")["b"]
    t = stats.ttest_ind(SECOND[:7], FIRST, equal_var=False).statistic
    assert found is not None
    assert found.freedom == 6
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs(t), 6))
    # With more seeds, both have as many of them.
    spreads = np.var(FIRST, ddof=1), np.var(SECOND[:7], ddof=1)
    assert found.groups == pytest.approx(sum(spreads) ** 2 / (spreads[0] ** 2 + spreads[1] ** 2))
    assert found.seeds_needed != replace(found, groups=1.0).seeds_needed


def test_seeds_that_are_added_are_tested_at_the_next_look() -> None:
    rows = {"a": [0.90, 0.91, 0.89, 0.90], "b": [0.912, 0.925, 0.893, 0.910]}
    values = {name: by_seed(row) for name, row in rows.items()}
    weights = {"b": {"b": 1.0, "a": -1.0}}
    now, later = level_of_look(2), level_of_look(3)
    once = builders.compare_all(values, weights, alpha=now)["b"]
    again = builders.compare_all(values, weights, alpha=now, later_alpha=later)["b"]
    assert once is not None
    assert again is not None
    assert (
        once.seeds_needed
        == builders.compare_all(values, weights, alpha=now, later_alpha=now)["b"].seeds_needed
    )
    assert (
        again.seeds_needed == builders.compare_all(values, weights, alpha=later)["b"].seeds_needed
    )
    assert again.seeds_needed != once.seeds_needed
    assert again.detectable == once.detectable


def test_a_contrast_is_the_t_test_of_the_weighted_sum_of_each_seed() -> None:
    generator = np.random.default_rng(2)
    rows = generator.normal(0.8, 0.1, (4, 5))
    values = {name: by_seed(list(row)) for name, row in zip("abcd", rows, strict=True)}
    weights = {"a": 1.0, "b": -1.0, "c": -1.0, "d": 1.0}
    found = builders.compare_all(values, {"depth": weights})["depth"]
    expected = stats.ttest_1samp(rows[0] - rows[1] - rows[2] + rows[3], 0.0)
    assert found is not None
    assert found.p_value == pytest.approx(expected.pvalue)
    welch = builders.compare_all(values, {"depth": weights}, test="welch")["depth"]
    assert welch is not None
    assert welch.mean == pytest.approx(found.mean)
    assert welch.freedom == pytest.approx(
        rows.var(axis=1, ddof=1).sum() ** 2 / (rows.var(axis=1, ddof=1) ** 2 / 4).sum()
    )


def test_the_effect_size_is_the_mean_over_the_deviation_of_the_differences() -> None:
    found = paired_difference(by_seed(SECOND), by_seed(FIRST))
    assert found is not None
    # Student's t of 4.06 is d_z times the root of ten pairs.
    assert found.effect_size == pytest.approx(4.0621 / math.sqrt(10), abs=1e-4)


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

    needed = seeds_needed(effect, level=0.05 / comparisons)
    if effect == 0.2:  # 198 seeds
        assert needed is None
    else:
        assert needed is not None
        assert noncentral(needed - 1) < 0.8 <= noncentral(needed)


def test_no_number_of_seeds_is_made_up() -> None:
    assert seeds_needed(0.0) is None
    assert seeds_needed(1e-4) is None
    assert seeds_needed(50.0) == 2
    assert seeds_needed(50.0, there=3) == 4
    assert seeds_needed(7.37) == 3  # where the noncentral t of statsmodels was NaN


@pytest.mark.parametrize("seeds", [2, 3, 5, 12, 60])
@pytest.mark.parametrize("comparisons", [1, 4, 12])
def test_power_is_that_of_simulated_studies(seeds: int, comparisons: int) -> None:
    generator = np.random.default_rng(1)
    deviation = np.sqrt(generator.chisquare(seeds - 1, 200_000) / (seeds - 1))
    noise = generator.normal(size=200_000)
    bound = stats.t.ppf(1 - 0.05 / comparisons / 2, seeds - 1)
    for effect in (0.1, 0.3, 0.7, 1.5, 3.0, 7.37, 12.0):
        found = np.abs(noise + effect * math.sqrt(seeds)) / deviation > bound
        assert power(effect, seeds, level=0.05 / comparisons) == pytest.approx(
            found.mean(), abs=0.005
        )


@pytest.mark.parametrize("seeds", [3, 8])
def test_power_of_welchs_test_is_that_of_simulated_studies(seeds: int) -> None:
    """Two samples of one variance: twice the degrees of freedom of a paired test."""
    generator = np.random.default_rng(2)
    for effect in (0.3, 0.7, 1.5):  # times the standard deviation of the difference
        one, other = generator.normal(size=(2, 100_000, seeds))
        difference = one.mean(1) - other.mean(1) + effect * 2**0.5
        error = np.sqrt((one.var(1, ddof=1) + other.var(1, ddof=1)) / seeds)
        found = np.abs(difference / error) > stats.t.ppf(0.975, 2 * (seeds - 1))
        assert power(effect, seeds, groups=2) == pytest.approx(found.mean(), abs=0.005)


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


@pytest.mark.parametrize("digits", [np.float32, np.float64])
def test_equal_differences_of_accuracies_have_no_interval(digits: type) -> None:
    """Runs before December 2026 have accuracies in single precision, which rounds them apart."""
    ours, theirs = (by_seed([float(digits(v)) for v in x]) for x in ([0.902, 0.912], [0.9, 0.91]))
    found = paired_difference(ours, theirs)
    assert found is not None
    assert (found.mean, found.low) == (pytest.approx(0.002, abs=1e-6), None)
