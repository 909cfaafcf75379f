"""The accuracy of guessing."""

from __future__ import annotations


def guessing_limit(guess: float) -> float:
    """Return the accuracy, 0…1, up to which a network is hardly better than guessing.

    It is half above that of guessing, at most 5 points above: 0.15 of ten classes, 0.55 of two. Of
    very unequal classes it is at most half-way to 1.

    Args:
        guess: accuracy, 0…1, of the answer that is right most often: the share of the largest
            class among the test images, one over the number of classes if all are equally large.
    """
    return guess + min(guess / 2, 0.05, (1 - guess) / 2)
