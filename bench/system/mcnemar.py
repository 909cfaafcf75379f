"""The exact McNemar test, of two classifiers' answers to the same images."""

from __future__ import annotations


def mcnemar_p_value(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of the hypothesis that both are right equally often.

    Given the images that just one of them answers right, that is a binomial test of ½
    (McNemar 1947). It speaks of these two networks on such images, not of another random seed.

    Args:
        only_first: images that only the first answers right.
        only_second: images that only the second answers right.
    """
    from scipy.stats import binom  # heavy

    tail = binom.cdf(min(only_first, only_second), only_first + only_second, 0.5)
    return min(1.0, 2 * float(tail))
