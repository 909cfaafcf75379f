"""Warm-up: run until the times are steady, or until the cap."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WINDOW = 8  # samples that have to look alike
_DRIFT = 0.05  # change across the window, relative to its median, that still counts as steady
_SIGNIFICANT = 0.05


@dataclass(frozen=True)
class WarmUp:
    """What warming up found.

    Attributes:
        seconds: every sample, in order; none of them counts.
        steady: whether the last ones no longer drifted; False where the cap came first.
    """

    seconds: tuple[float, ...]
    steady: bool

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
    """Run *sample* until its last values are steady.

    Args:
        sample: runs once and returns its seconds.
        cap_seconds: stop after so much time in any case, but not before the second sample.
        now: a clock.
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
    """Whether the last samples show no trend: Kendall's tau, or a slope too small to matter.

    The rank test is not misled by one slow sample; the slope is Theil and Sen's.
    """
    from scipy.stats import kendalltau, theilslopes

    if len(seconds) < WINDOW:
        return False
    last = np.asarray(seconds[-WINDOW:])
    order = np.arange(WINDOW)
    if np.ptp(last) == 0:
        return True
    drift = abs(theilslopes(last, order).slope) * WINDOW / float(np.median(last))
    return bool(drift < _DRIFT or kendalltau(order, last).pvalue > _SIGNIFICANT)
