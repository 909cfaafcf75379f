"""Comparison of two measurements, configuration by configuration: what has become slower?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.errors import BenchError
from bench.system.intervals import FEWEST_PROCESSES, LOOK_CONFIDENCE, process_interval

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bench.measurement.compared_speeds import ComparedSpeed, ComparedSpeeds


_FEW = "fewer than six processes: measure with --processes auto"


@dataclass(frozen=True)
class Change:
    """The change of one configuration.

    Attributes:
        configuration: its name.
        ratio: candidate's speed over the baseline's, with its 95 % interval `low` to `high`; NaN if
            there is no such figure.
        basis: what was compared: `ratio` (to each measurement's own reference) or `images/s`.
        verdict: slower or faster (the whole interval is beyond the threshold), same (the whole
            interval is within it), undecided (neither), or not judged.
        reason: why it was not judged; None if it was.
    """

    configuration: str
    ratio: float
    low: float
    high: float
    basis: str
    verdict: str
    reason: str | None = None


def compare(
    baseline: ComparedSpeeds,
    candidate: ComparedSpeeds,
    threshold: float,
    *,
    absolute: bool = False,
) -> tuple[list[Change], list[str]]:
    """Compare the configurations that both hold.

    They are compared by their ratio to the reference that was measured beside them, which a
    machine that is slower today does not change. Images/s themselves are judged only where both
    measurements are of six processes or more. An interval over so many processes is judged
    however wide it is.

    Args:
        baseline: what is compared with.
        candidate: what may have become slower.
        threshold: 0.05 lets changes within ±5 % pass as the same.
        absolute: judge all by images/s, also those of one process.

    Returns:
        The changes, and remarks: how they were compared, what only one of them holds, and the
        warnings of both measurements.

    Raises:
        BenchError: they have nothing in common, or machines differ and there is no reference.
    """
    check_threshold(threshold)
    shared = [key for key in baseline.speeds if key in candidate.speeds]
    if not shared:
        raise BenchError(_nothing_shared(baseline, candidate))
    remarks = []
    if baseline.machine != candidate.machine:
        shared = [k for k in shared if baseline.speeds[k].relative and candidate.speeds[k].relative]
        if not shared or absolute:
            raise BenchError(
                f"{baseline.name} is of {baseline.machine}, {candidate.name} of "
                f"{candidate.machine}: without a reference in each they cannot be compared; "
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
    pairs = [(key, baseline.speeds[key], candidate.speeds[key]) for key in shared]
    remarks += [
        f"{key}: not the same file in both (their SHA-256 differ)."
        for key, before, now in pairs
        if before.is_other_file(now)
    ]
    remarks += _warnings(baseline, shared) + _warnings(candidate, shared)
    same_machine = baseline.machine == candidate.machine
    changes = [
        _change(*pair, threshold, absolute=absolute, same_machine=same_machine) for pair in pairs
    ]
    failed = {k: error for k, error in candidate.failed.items() if k in baseline.speeds}
    return changes + _without_figures(failed, "images/s"), remarks


def judge(measured: ComparedSpeeds, threshold: float) -> tuple[list[Change], list[str]]:
    """Judge each configuration of one measurement by its ratio to the reference beside it.

    Both were measured in the same processes, which is the most precise comparison there is:
    `bench throughput main.onnx branch.onnx --reference main.onnx`.

    Args:
        measured: one measurement.
        threshold: as for `compare`.

    Returns:
        The changes relative to the reference, and the warnings of the measurement.

    Raises:
        BenchError: it has no configuration beside a reference.
    """
    check_threshold(threshold)
    changes = [
        _change_to_reference(key, speed, threshold)
        for key, speed in measured.speeds.items()
        if speed.relative and not speed.is_reference
    ]
    if not changes:
        doubts = dict.fromkeys(one.doubt for one in measured.speeds.values() if one.doubt)
        way_on = "give a second measurement, or measure with --reference"
        raise BenchError(
            f"{measured.name} holds nothing beside a reference: {'; '.join(doubts) or way_on}"
        )
    doubtful = {k: one.doubt for k, one in measured.speeds.items() if one.doubt}
    unknown = {k: doubt for k, doubt in doubtful.items() if not measured.speeds[k].relative}
    changes += _without_figures(unknown | measured.failed, "ratio")
    return changes, _warnings(measured, measured.speeds)


def change_over_pairs(
    pairs: Sequence[tuple[ComparedSpeeds, ComparedSpeeds]], threshold: float
) -> list[Change]:
    """Return the changes over pairs of processes, each of a baseline and a candidate.

    The intervals are over pairs (`bench.system.intervals.process_interval`), at the level of one
    of four looks.

    Raises:
        BenchError: the pairs have no configuration in common.
    """
    shared = [
        key
        for key in pairs[0][0].speeds
        if all(key in one.speeds for pair in pairs for one in pair)
    ]
    if not shared:
        raise BenchError(_nothing_shared(*pairs[0]))
    changes = []
    for key in shared:
        ratios = [now.speeds[key].value / before.speeds[key].value for before, now in pairs]
        found = process_interval(ratios, LOOK_CONFIDENCE)
        busy = {one.speeds[key].busy for pair in pairs for one in pair} - {None}
        reason = next(iter(sorted(map(str, busy))), None)
        verdict = "not judged" if reason else _verdict(found.low, found.high, threshold)
        changes.append(
            Change(key, found.median, found.low, found.high, "images/s", verdict, reason)
        )
    return changes


def undecided_remark(changes: Sequence[Change], threshold: float) -> str | None:
    """Say which slowdown intervals as wide as the undecided ones show; None if all are decided."""
    # The interval of a smaller one would reach above 1 - threshold.
    found = sorted(
        1 - (1 - threshold) * change.ratio / change.high
        for change in changes
        if change.verdict == "undecided"
    )
    if not found:
        return None
    sizes = dict.fromkeys(f"{100 * size:.1f}" for size in (found[0], found[-1]))
    return (
        "Undecided: with intervals this wide, a slowdown is found if it measures "
        f"{' to '.join(sizes)} % or more"
    )


def check_threshold(threshold: float) -> None:
    """Raise a BenchError if a threshold is no share."""
    if not 0 <= threshold < 1:
        raise BenchError(f"--threshold {threshold:g}: it is relative, 0 … 1, such as 0.05")


def _change_to_reference(key: str, speed: ComparedSpeed, threshold: float) -> Change:
    reason = speed.busy or speed.doubt
    if speed.ratio_processes < FEWEST_PROCESSES:
        reason = _FEW
    ratio, low, high = speed.relative or speed.measured
    verdict = "not judged" if reason else _verdict(low, high, threshold)
    return Change(f"{key} / {speed.reference}", ratio, low, high, "ratio", verdict, reason)


def _without_figures(reasons: Mapping[str, str], basis: str) -> list[Change]:
    return [
        Change(key, math.nan, math.nan, math.nan, basis, "not judged", reason)
        for key, reason in reasons.items()
    ]


def _verdict(low: float, high: float, threshold: float) -> str:
    if high < 1 - threshold:
        return "slower"
    if low > 1 + threshold:
        return "faster"
    return "same" if low >= 1 - threshold and high <= 1 + threshold else "undecided"


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
    key: str,
    before: ComparedSpeed,
    now: ComparedSpeed,
    threshold: float,
    *,
    absolute: bool,
    same_machine: bool,
) -> Change:
    is_reference = before.is_reference or now.is_reference
    by_reference = before.reference == now.reference and not (is_reference and same_machine)
    reason = None
    if before.relative and now.relative and by_reference and not absolute:
        basis, found = "ratio", ratio_of(now.relative, before.relative)
        if min(before.ratio_processes, now.ratio_processes) < FEWEST_PROCESSES:
            reason = _FEW
    else:
        basis, found = "images/s", ratio_of(now.measured, before.measured)
        if not absolute and min(before.processes, now.processes) < FEWEST_PROCESSES:
            reason = "images/s of fewer than six processes; --absolute judges them all the same"
            if is_reference:
                reason = f"the reference: {reason}"
    reason = before.busy or now.busy or before.doubt or now.doubt or reason
    ratio, low, high = found
    verdict = "not judged" if reason else _verdict(low, high, threshold)
    return Change(key, ratio, low, high, basis, verdict, reason)


def _warnings(measured: ComparedSpeeds, configurations: Iterable[str]) -> list[str]:
    """Return the distinct warnings of some configurations, each with the measurement's name."""
    found = [warning for key in configurations for warning in measured.speeds[key].warnings]
    return [f"{measured.name}: {warning}." for warning in dict.fromkeys(found)]


def _nothing_shared(baseline: ComparedSpeeds, candidate: ComparedSpeeds) -> str:
    if baseline.boundaries and not baseline.boundaries & candidate.boundaries:
        both = (", ".join(sorted(s.boundaries)) for s in (baseline, candidate))
        return "the boundaries differ ({} and {}): what is timed is not the same".format(*both)
    return f"{baseline.name} and {candidate.name} have no configuration in common"
