"""Warm-up: run until the times are steady, or until a time limit."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import kendalltau, theilslopes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WINDOW = 8  # samples in which there may be no trend
_DRIFT = 0.05  # change across the window, relative to its median, that counts as steady
_SIGNIFICANT = 0.05


@dataclass(frozen=True)
class WarmUp:
    """The samples of a warm-up.

    Attributes:
        seconds: every sample, in order.
        steady: whether the last ones showed no trend; False if the time limit came first.
        repeats: number of calls that a sample after it averages.
    """

    seconds: tuple[float, ...]
    steady: bool
    repeats: int = 1

    @property
    def typical(self) -> float:
        """Median of the last samples, in seconds."""
        return float(np.median(self.seconds[-WINDOW:]))


def warm_up(
    sample: Callable[[], float],
    *,
    cap_seconds: float,
    now: Callable[[], float] = time.monotonic,
) -> WarmUp:
    """Call *sample*, which returns seconds, until its last values are steady.

    At least two samples are taken, whatever the time limit.
    """
    begun = now()
    seconds: list[float] = []
    while True:
        seconds.append(sample())
        if is_steady(seconds):
            return WarmUp(tuple(seconds), True)
        if len(seconds) > 1 and now() - begun > cap_seconds:
            return WarmUp(tuple(seconds), False)


def is_steady(seconds: Sequence[float]) -> bool:
    """Return whether the last samples show no trend.

    Kendall's rank test, which one slow sample does not mislead, finds none, or the slope of Theil
    and Sen is too small to matter.
    """
    if len(seconds) < WINDOW:
        return False
    last = np.asarray(seconds[-WINDOW:])
    order = np.arange(WINDOW)
    if np.ptp(last) == 0:
        return True
    drift = abs(theilslopes(last, order).slope) * WINDOW / float(np.median(last))
    return bool(drift < _DRIFT or kendalltau(order, last).pvalue > _SIGNIFICANT)
