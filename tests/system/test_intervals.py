from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bench.system.intervals import median_interval, ratio_interval


def test_agrees_with_scipys_bootstrap_on_independent_samples():
    samples = np.random.default_rng(0).lognormal(0, 0.1, 200)
    ours = median_interval(samples[:, None])
    theirs = stats.bootstrap(
        (samples,), np.median, method="percentile", n_resamples=5000, rng=1
    ).confidence_interval
    assert ours.low == pytest.approx(theirs.low, rel=0.01)
    assert ours.high == pytest.approx(theirs.high, rel=0.01)


def test_samples_of_one_block_are_not_taken_for_independent_ones():
    generator = np.random.default_rng(0)
    levels = generator.normal(1, 0.05, (40, 1))
    clustered = levels + generator.normal(0, 0.001, (40, 25))
    shuffled = generator.permutation(clustered.ravel()).reshape(40, 25)
    assert median_interval(clustered).half_width > 2 * median_interval(shuffled).half_width


@pytest.mark.parametrize("blocks", [1, 5])
def test_so_few_blocks_carry_no_interval(blocks):
    assert not median_interval([[1.0], [1.1], [0.9], [1.2], [0.8]][:blocks]).confident


def test_the_same_samples_give_the_same_interval():
    samples = np.random.default_rng(3).normal(1, 0.1, (12, 4))
    assert median_interval(samples) == median_interval(samples)


@pytest.mark.parametrize("blocks", [[], [[]]])
def test_nothing_has_no_interval(blocks):
    with pytest.raises(ValueError, match="at least one sample"):
        median_interval(blocks)


def test_a_ratio_is_paired_by_round():
    # The machine slows down fivefold half way; the ratio does not.
    drift = {r: 1.0 if r < 10 else 5.0 for r in range(20)}
    reference = {r: [2.0 * d] for r, d in drift.items()}
    other = {r: [1.0 * d] for r, d in drift.items() if r != 3}
    ratio = ratio_interval(reference, other)
    assert ratio is not None
    assert (ratio.low, ratio.median, ratio.high) == (2.0, 2.0, 2.0)
    assert ratio.blocks == 19


def test_without_a_common_round_there_is_no_ratio():
    assert ratio_interval({0: [1.0]}, {1: [1.0]}) is None
