"""The accuracy of guessing."""

from __future__ import annotations


def guessing_limit(classes: int) -> float:
    """Return the accuracy, 0…1, up to which a network is hardly better than guessing.

    It is half above that of guessing, at most 5 points above: 0.15 of ten classes, 0.55 of two.
    """
    chance = 1 / classes
    return chance + min(chance / 2, 0.05)
