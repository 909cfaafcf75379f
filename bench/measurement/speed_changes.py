"""Comparison of two measurements, configuration by configuration: what has become slower?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.measurement.compared_speeds import ComparedSpeed, ComparedSpeeds


@dataclass(frozen=True)
class Change:
    """The change of one configuration.

    Attributes:
        configuration: its name.
        ratio: candidate's speed over the baseline's, with its 95 % interval `low` to `high`.
        verdict: slower or faster (the whole interval is beyond the threshold), same, or noisy
            (no claim).
    """

    configuration: str
    ratio: float
    low: float
    high: float
    verdict: str


def compare(
    baseline: ComparedSpeeds, candidate: ComparedSpeeds, threshold: float
) -> tuple[list[Change], list[str]]:
    """Compare the configurations that both hold.

    A *threshold* of 0.05 lets changes within ±5 % pass as the same.

    Returns:
        The changes, and remarks on how they were compared and on what only one of them holds.

    Raises:
        BenchError: they have nothing in common, or machines differ and there is no reference.
    """
    if not 0 <= threshold < 1:
        raise BenchError(f"--threshold {threshold:g}: it is relative, 0 … 1, such as 0.05")
    shared = [key for key in baseline.speeds if key in candidate.speeds]
    if not shared:
        raise BenchError(_nothing_shared(baseline, candidate))
    remarks = []
    relative = baseline.machine != candidate.machine
    if relative:
        shared = [k for k in shared if baseline.speeds[k].relative and candidate.speeds[k].relative]
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
        only = len(one.speeds.keys() - other.speeds.keys())
        if only:
            remarks.append(f"{only} configuration(s) only in {one.name}.")
    remarks += [
        f"{key}: not the same file in both (their SHA-256 differ)."
        for key in shared
        if baseline.speeds[key].is_other_file(candidate.speeds[key])
    ]
    changes = [
        _change(key, baseline.speeds[key], candidate.speeds[key], threshold, relative=relative)
        for key in shared
    ]
    return changes, remarks


def ratio_of(
    top: tuple[float, float, float], bottom: tuple[float, float, float]
) -> tuple[float, float, float]:
    """Return the interval of top / bottom, for values that were measured independently.

    Its ends follow from the two intervals on a logarithmic scale (MOVER; Donner and Zou 2012),
    which needs neither symmetry nor samples. Ratios of interleaved samples are narrower:
    `bench.system.intervals.ratio_interval`. Each argument is a value with its low and high end.
    """
    a, a_low, a_high = map(math.log, top)
    b, b_low, b_high = map(math.log, bottom)
    difference = a - b
    low = difference - math.hypot(a - a_low, b_high - b)
    high = difference + math.hypot(a_high - a, b - b_low)
    return math.exp(difference), math.exp(low), math.exp(high)


def _change(
    key: str, before: ComparedSpeed, now: ComparedSpeed, threshold: float, *, relative: bool
) -> Change:
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


def _nothing_shared(baseline: ComparedSpeeds, candidate: ComparedSpeeds) -> str:
    if baseline.boundaries and not baseline.boundaries & candidate.boundaries:
        both = (", ".join(sorted(s.boundaries)) for s in (baseline, candidate))
        return "the boundaries differ ({} and {}): what is timed is not the same".format(*both)
    return f"{baseline.name} and {candidate.name} have no configuration in common"
