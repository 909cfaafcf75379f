"""The accuracy of guessing."""

from __future__ import annotations

from functools import cache

from bench.system.intervals import CONFIDENCE

ROUNDING = 1e-6  # of accuracies, which runs before December 2026 have in single precision


def guessing_limit(guess: float) -> float:
    """Return the accuracy, 0…1, up to which a network is hardly better than guessing.

    It is half above that of guessing, at most 5 points above: 0.15 of ten classes, 0.55 of two. Of
    very unequal classes it is at most half-way to 1.

    Args:
        guess: accuracy, 0…1, of the answer that is right most often: the share of the largest
            class among the test images, one over the number of classes if all are equally large.
    """
    return guess + min(guess / 2, 0.05, (1 - guess) / 2)


def learned(accuracy: float, guess: float, images: int) -> bool:
    """Tell whether an accuracy, 0…1, of a number of images is above that of guessing."""
    return accuracy > highest_guess(guess, images) + ROUNDING


@cache
def highest_guess(guess: float, images: int) -> float:
    """Return the upper end of the accuracies between which 95 % of guesses lie (binomial).

    It is at most half-way to 1: of few images, most of one class, all may be guessed.
    """
    from scipy import stats

    end = float(stats.binom.interval(CONFIDENCE, images, guess)[1]) / images
    return min(end, (1 + guess) / 2)
