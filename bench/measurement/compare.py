"""Two measurements, configuration by configuration: has anything become slower?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.measurement.compared_speeds import Figure, Side


@dataclass(frozen=True)
class Change:
    """One configuration in both.

    Attributes:
        configuration: which.
        ratio: candidate's speed over the baseline's; below 1 is slower.
        low: lower end of its 95 % interval.
        high: upper end.
        verdict: slower or faster (the whole interval lies beyond the threshold), same, or
            noisy (no claim).
    """

    configuration: str
    ratio: float
    low: float
    high: float
    verdict: str


def compare(baseline: Side, candidate: Side, threshold: float) -> tuple[list[Change], list[str]]:
    """Compare what both sides hold.

    Args:
        baseline: what was before.
        candidate: what is now.
        threshold: relative change that matters; 0.05 is 5 %.

    Returns:
        The changes, and remarks on how they were compared and what only one side holds.

    Raises:
        BenchError: nothing is in both, or machines differ and there is no reference.
    """
    if not 0 <= threshold < 1:
        raise BenchError(f"--threshold {threshold:g}: it is relative, 0 … 1, such as 0.05")
    shared = [key for key in baseline.figures if key in candidate.figures]
    if not shared:
        raise BenchError(_nothing_shared(baseline, candidate))
    remarks = []
    relative = baseline.machine != candidate.machine
    if relative:
        shared = [
            k for k in shared if baseline.figures[k].relative and candidate.figures[k].relative
        ]
        if not shared:
            raise BenchError(
                f"{baseline.name} is of {baseline.machine}, {candidate.name} of "
                f"{candidate.machine}, and without a reference in each they cannot be compared: "
                "measure both on one machine"
            )
        remarks.append(
            f"Different machines ({baseline.machine}; {candidate.machine}): compared by the ratio "
            "to each one's own reference, not by images/s."
        )
    for one, other in ((baseline, candidate), (candidate, baseline)):
        only = len(one.figures.keys() - other.figures.keys())
        if only:
            remarks.append(f"{only} configuration(s) only in {one.name}.")
    changes = [
        _change(key, baseline.figures[key], candidate.figures[key], threshold, relative=relative)
        for key in shared
    ]
    return changes, remarks


def ratio_of(
    top: tuple[float, float, float], bottom: tuple[float, float, float]
) -> tuple[float, float, float]:
    """Return top/bottom with its interval, from each one's (value, low, high).

    The ends are recovered from the two intervals on a logarithmic scale (MOVER; Donner and
    Zou 2012), which needs no symmetry and no samples.
    """
    a, a_low, a_high = map(math.log, top)
    b, b_low, b_high = map(math.log, bottom)
    difference = a - b
    low = difference - math.hypot(a - a_low, b_high - b)
    high = difference + math.hypot(a_high - a, b - b_low)
    return math.exp(difference), math.exp(low), math.exp(high)


def _change(key: str, before: Figure, now: Figure, threshold: float, *, relative: bool) -> Change:
    pair = [
        f.relative if relative and f.relative else (f.value, f.low, f.high) for f in (now, before)
    ]
    ratio, low, high = ratio_of(*pair)
    verdict = "same"
    if before.noisy or now.noisy:
        verdict = "noisy"
    elif high < 1 - threshold:
        verdict = "slower"
    elif low > 1 + threshold:
        verdict = "faster"
    return Change(key, ratio, low, high, verdict)


def _nothing_shared(baseline: Side, candidate: Side) -> str:
    if baseline.boundaries and not baseline.boundaries & candidate.boundaries:
        sides = (", ".join(sorted(s.boundaries)) for s in (baseline, candidate))
        return "the boundaries differ ({} and {}): what is timed is not the same".format(*sides)
    return f"{baseline.name} and {candidate.name} have no configuration in common"
