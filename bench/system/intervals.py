"""Intervals of timed samples: over fresh processes, and within one process.

What differs between two runs of one command (where memory lies, which clock speed a core found) is
constant within a process, so that only several processes show it: their logarithms have a
t-interval (Kalibera and Jones 2013, "Rigorous benchmarking in reasonable time"; Georges et al.
2007).

Within one process, samples come in blocks, one block of each compared configuration per round.
Blocks are resampled, not samples: samples of one block share the machine's state, and treating
them as independent would make an interval too narrow (the block, or cluster, bootstrap; Efron and
Tibshirani 1993, section 8.6).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

CONFIDENCE = 0.95
FEWEST_PROCESSES = 6  # with fewer, no claim is made
# Numbers of processes at which a measurement may stop, and the level of each look's intervals, so
# that all four looks together keep about 95 % (Pocock 1977; of t-intervals, 94.6 % in simulation).
LOOKS = (6, 10, 16, 24)
LOOK_CONFIDENCE = 1 - 0.0182
RESAMPLES = 1000
# Below it the percentile bootstrap of a median is too narrow, and the exact interval from
# order statistics is cheap.
_FEW_BLOCKS = 30
_CHUNK_VALUES = 2_000_000  # of resampled values held at a time


@dataclass(frozen=True)
class Interval:
    """A typical value with its 95 % interval.

    Attributes:
        median: of all samples of one process, or the geometric mean over processes.
        low: lower end.
        high: upper end.
        blocks: number of blocks, or of processes.
        confident: whether there are enough of them for 95 % (six or more); if not, `low` and
            `high` of one process are only its smallest and largest block.
    """

    median: float
    low: float
    high: float
    blocks: int
    confident: bool

    @property
    def half_width(self) -> float:
        """Half the interval relative to the median: 0.02 is ±2 %."""
        return (self.high - self.low) / 2 / self.median if self.median else 0.0

    def scaled(self, factor: float) -> Interval:
        """Return the interval of *factor* times the value."""
        return replace(
            self, median=factor * self.median, low=factor * self.low, high=factor * self.high
        )

    def per_second(self, count: float = 1.0) -> Interval:
        """Return the interval of *count* things per second, where this one is of seconds."""
        return replace(
            self, median=count / self.median, low=count / self.high, high=count / self.low
        )


def mostly_failed(failures: int, complete: int) -> bool:
    """Return whether to give up what is repeated: two processes or more, and most, have failed."""
    return failures > max(1, complete)


def process_interval(
    values: Sequence[float] | npt.NDArray[np.float64], confidence: float = CONFIDENCE
) -> Interval:
    """Return the geometric mean of one positive value per process, with its t-interval.

    Args:
        values: the median time of each process, or its ratio of two.
        confidence: level of the interval.

    Returns:
        It is confident from six processes on. Of one process, `low` and `high` are the value.

    Raises:
        ValueError: there is no value.
    """
    from scipy.stats import t

    logs = np.log(np.asarray(values, dtype=np.float64))
    if logs.size == 0:
        raise ValueError("an interval needs at least one process")
    count, centre = len(logs), float(logs.mean())
    half = 0.0
    if count > 1:
        quantile = float(t.ppf((1 + confidence) / 2, count - 1))
        half = quantile * float(logs.std(ddof=1)) / math.sqrt(count)
    low, high = math.exp(centre - half), math.exp(centre + half)
    return Interval(math.exp(centre), low, high, count, count >= FEWEST_PROCESSES)


def repeat_interval(
    measured: tuple[float, float, float], earlier: Sequence[float]
) -> tuple[float, float]:
    """Return the 95 % interval of a measurement's value for the mean of many measurements.

    It is at least as wide as the measurement's own interval.

    Args:
        measured: the positive value, and the ends of its interval within the measurement.
        earlier: the values of other measurements of the same, at least one.
    """
    value, low, high = measured
    spread = process_interval([*earlier, value])
    # The interval of one value around the mean, not that of the mean itself.
    half = math.log(spread.high / spread.median) * math.sqrt(len(earlier) + 1)
    return min(low, value * math.exp(-half)), max(high, value * math.exp(half))


def share_interval(share: float, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of *count* images (Wilson 1927).

    It is the uncertainty of a test accuracy for other images of the same kind.
    """
    from scipy.stats import binomtest

    found = binomtest(round(share * count), count).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)


def two_modes(values: Sequence[float]) -> tuple[list[float], list[float]] | None:
    """Split the times of processes into a fast and a slow cluster, if there are two.

    There are two if the widest gap between neighbours is both wider than 3 % and wider than
    three times the larger of the clusters' ranges, and each cluster has at least two processes.
    """
    ordered = sorted(values)
    logs = np.log(ordered)
    if len(logs) < 4:  # noqa: PLR2004 - two clusters of two
        return None
    gaps = np.diff(logs)
    cut = int(gaps.argmax()) + 1
    low, high = logs[:cut], logs[cut:]
    if min(len(low), len(high)) < 2:  # noqa: PLR2004
        return None
    widest = max(0.01, float(np.ptp(low)), float(np.ptp(high)))
    return (ordered[:cut], ordered[cut:]) if gaps.max() > 3 * widest else None


def median_interval(blocks: Sequence[Sequence[float]] | npt.NDArray[np.float64]) -> Interval:
    """Return the median of all samples with its 95 % bootstrap interval, resampling whole blocks.

    With fewer than 30 blocks the interval is widened to the exact one of the blocks' medians
    from order statistics (binomial; Conover 1999, section 3.2), since the percentile
    bootstrap of a median falls short of its level there.

    Args:
        blocks: samples, blocks × samples; every block equally long.

    Raises:
        ValueError: there is no sample, or blocks differ in length.
    """
    values = np.asarray(blocks, dtype=np.float64)
    if values.ndim != 2 or values.size == 0:  # noqa: PLR2004 - blocks × samples
        raise ValueError("an interval needs equally long blocks of at least one sample")
    medians = np.median(values, axis=1)
    count = len(values)
    exact = _order_statistics(medians)
    if exact is None:
        return Interval(float(np.median(values)), medians.min(), medians.max(), count, False)
    low, high = _bootstrap(values)
    if count < _FEW_BLOCKS:
        low, high = min(low, exact[0]), max(high, exact[1])
    return Interval(float(np.median(values)), float(low), float(high), count, True)


def ratio_interval(
    reference: Mapping[int, Sequence[float]], other: Mapping[int, Sequence[float]]
) -> Interval | None:
    """Return how many times faster *other* is than *reference*, paired by round.

    Args:
        reference: round → seconds of the block's samples.
        other: the same of what is compared with it.

    Returns:
        The median over the rounds that both have of (reference's median / other's median)
        with its interval; None without such a round.
    """
    rounds = sorted(reference.keys() & other.keys())
    if not rounds:
        return None
    ratios = [[np.median(reference[r]) / np.median(other[r])] for r in rounds]
    return median_interval(np.array(ratios))


def _bootstrap(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    generator = np.random.default_rng(0)  # the same samples give the same interval
    count, length = values.shape
    step = max(1, _CHUNK_VALUES // values.size)
    medians: list[npt.NDArray[np.float64]] = []
    for start in range(0, RESAMPLES, step):
        chosen = generator.integers(count, size=(min(step, RESAMPLES - start), count))
        medians.append(np.median(values[chosen].reshape(len(chosen), count * length), axis=1))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(medians), [tail, 1 - tail])
    return float(low), float(high)


def _order_statistics(values: npt.NDArray[np.float64]) -> tuple[float, float] | None:
    """Return the exact interval of the median; None for too few values."""
    from scipy.stats import binom

    rank = int(binom.ppf((1 - CONFIDENCE) / 2, len(values), 0.5))
    if rank < 1:
        return None
    ordered = np.sort(values)
    return float(ordered[rank - 1]), float(ordered[-rank])
