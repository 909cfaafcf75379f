"""Comparison of two measurements, configuration by configuration: what has become slower?"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from bench.errors import BenchError
from bench.system.intervals import FEWEST_PROCESSES, LOOK_CONFIDENCE, process_interval

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bench.measurement.compared_speeds import ComparedSpeed, ComparedSpeeds

TOO_FEW_PAIRS = f"fewer than {FEWEST_PROCESSES} pairs of processes"


_FIGURE = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?!\w)")  # no part of a name
# Images/s differ more from run to run than between a run's processes: of 380 pairs of identical
# measurements, 66 would be alarms at a threshold of 2 %, and 2 at 5 % (results/throughput).
_SINGLE_THRESHOLD = 0.05
_REPEAT = (
    "measure three times or more into one results folder, at one clean commit, or give --absolute"
)
_SINGLE = f"images/s of single measurements at a threshold below 5 %; {_REPEAT}"
# Where a machine drifts over minutes, at any threshold.
_SINGLE_REFERENCE = f"images/s of single measurements; {_REPEAT}"
_NO_INTERVAL = "times of one process, too few or too noisy for an interval; give more --max-seconds"
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
        reason: why it was not judged, or is undecided though the interval is narrow; else None.
    """

    configuration: str
    ratio: float
    low: float
    high: float
    basis: str
    verdict: str
    reason: str | None = None


class Pair(NamedTuple):
    """A process of the baseline and one of the candidate that ran one after the other.

    Attributes:
        before: speeds in the baseline's process.
        now: speeds in the candidate's process.
        baseline_first: whether the baseline's process ran first.
    """

    before: ComparedSpeeds
    now: ComparedSpeeds
    baseline_first: bool

    @property
    def sides(self) -> tuple[ComparedSpeeds, ComparedSpeeds]:
        """The baseline's and the candidate's speeds."""
        return self.before, self.now

    def ratio(self, key: str) -> float:
        """Return the candidate's speed over the baseline's."""
        return self.now.speeds[key].value / self.before.speeds[key].value


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
    measurements are of six processes or more and, at a threshold below 5 %, repeated; those of a
    reference, beside ratios, only where both are repeated. An interval over so many processes is
    judged however wide it is.

    Args:
        baseline: what is compared with.
        candidate: what may have become slower.
        threshold: 0.05 lets changes within ±5 % pass as the same.
        absolute: judge all by images/s, also those of one process or measurement.

    Returns:
        The changes, and remarks: how they were compared, what only one of them holds, and the
        warnings of both measurements.

    Raises:
        BenchError: they have nothing in common, or all of that was measured on different machines,
            without a reference.
    """
    check_threshold(threshold)
    pairs, remarks = _comparable(baseline, candidate, absolute=absolute)
    for one, other in ((baseline, candidate), (candidate, baseline)):
        only = len(one.speeds.keys() - other.speeds.keys())
        if only:
            remarks.append(f"{only} configuration(s) only in {one.name}.")
    remarks += [
        f"{key}: not the same file in both (their SHA-256 differ)."
        for key, before, now in pairs
        if before.is_other_file(now)
    ]
    compared = [key for key, *_ in pairs]
    remarks += _warnings(baseline, compared) + _warnings(candidate, compared)
    beside = any(_ratios(*pair[1:]) for pair in pairs)
    changes = [_change(*pair, threshold, absolute=absolute, beside_ratios=beside) for pair in pairs]
    remarks += [
        f"{one.configuration}, the reference: images/s changed by the factor {one.ratio:.3g} "
        f"[{one.low:.3g}, {one.high:.3g}], which is not judged: {_SINGLE_REFERENCE}."
        for one in changes
        if one.reason == _SINGLE_REFERENCE
    ]
    changes = [change for change in changes if change.reason != _SINGLE_REFERENCE]
    known = baseline.speeds.keys() | baseline.failed.keys()
    failed = {k: error for k, error in candidate.failed.items() if k in known}
    lost = {k: error for k, error in candidate.unsupported.items() if k in baseline.speeds}
    return changes + _without_figures(failed | lost, "images/s"), remarks


def _comparable(
    baseline: ComparedSpeeds, candidate: ComparedSpeeds, *, absolute: bool
) -> tuple[list[tuple[str, ComparedSpeed, ComparedSpeed]], list[str]]:
    """Return what both hold and can be compared, and remarks on what ran on different machines.

    Each speed has a machine of its own: training and measurements of one results folder may be of
    different ones, and name the same one differently.
    """
    speeds = candidate.speeds
    pairs = [(k, before, speeds[k]) for k, before in baseline.speeds.items() if k in speeds]
    if not pairs:
        raise BenchError(_nothing_shared(baseline, candidate))
    apart = [(before, now) for _, before, now in pairs if before.machine != now.machine]
    if not apart:
        return pairs, []
    one, other = (speed.machine for speed in apart[0])
    kept = [
        (key, before, now)
        for key, before, now in pairs
        if before.machine == now.machine or (before.relative and now.relative and not absolute)
    ]
    if not kept:
        raise BenchError(
            f"{baseline.name} is of {one}, {candidate.name} of {other}: without a reference in "
            "each they cannot be compared; measure both on one machine"
        )
    named, lost = f"Different machines ({one}; {other})", len(pairs) - len(kept)
    remarks = []
    if lost < len(apart):
        remarks.append(
            f"{named}: compared by the ratio to each one's own reference, not by images/s."
        )
    if lost:
        remarks.append(f"{named}: {lost} configuration(s) are not compared.")
    return kept, remarks


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


def change_over_pairs(pairs: Sequence[Pair], threshold: float) -> tuple[list[Change], list[str]]:
    """Compare the images/s of pairs of processes.

    The intervals are over pairs (`bench.system.intervals.process_interval`), at the level of one
    of four looks. Each configuration is compared over the pairs that have it on both sides.

    Args:
        pairs: each a process of the baseline and one of the candidate, in either order.
        threshold: as for `compare`.

    Returns:
        The changes, and remarks: configurations that pairs lack, networks that differ, and the
        warnings of both sides.

    Raises:
        BenchError: the pairs have no configuration in common.
    """
    sides = [side for pair in pairs for side in pair.sides]
    names = dict.fromkeys(key for side in sides for key in (*side.speeds, *side.failed))
    both = {
        key: [pair for pair in pairs if all(key in side.speeds for side in pair.sides)]
        for key in names
    }
    if not any(both.values()):
        raise BenchError(_nothing_shared(*pairs[0].sides))
    changes: list[Change] = []
    remarks: list[str] = []
    for key, having in both.items():
        if not having:
            errors = [side.failed[key] for side in sides if key in side.failed]
            if errors:
                changes += _without_figures({key: errors[0]}, "images/s")
                continue
            having_it = dict.fromkeys(side.name for side in sides if key in side.speeds)
            remarks.append(f"{key}: not compared, measured only in {' or '.join(having_it)}.")
            continue
        changes.append(_change_over_pairs(key, having, threshold))
        if len(having) < len(pairs):
            remarks.append(f"{key}: measured in {len(having)} of {len(pairs)} pairs.")
        remarks += _other_network(key, having[0])
    for one_side in zip(*(pair.sides for pair in pairs), strict=True):
        remarks += _warnings_of_processes(one_side)
    return changes, remarks


def _change_over_pairs(key: str, pairs: Sequence[Pair], threshold: float) -> Change:
    """Return the change of a configuration over the pairs that have it."""
    speeds = [side.speeds[key] for pair in pairs for side in pair.sides]
    doubts = [one.doubt or one.busy for one in speeds]
    found = process_interval([pair.ratio(key) for pair in pairs], LOOK_CONFIDENCE)
    reason = next(iter(sorted(filter(None, doubts))), None)
    if len(pairs) < FEWEST_PROCESSES:
        reason = TOO_FEW_PAIRS
    elif len({pair.baseline_first for pair in pairs}) == 1:
        reason = "every complete pair began with the same environment"
    verdict = "not judged" if reason else _verdict(found.low, found.high, threshold)
    if verdict in {"slower", "faster"} and not _orders_agree(key, pairs):
        verdict, reason = "undecided", "the two orders disagree"
    return Change(key, found.median, found.low, found.high, "images/s", verdict, reason)


def _orders_agree(key: str, pairs: Sequence[Pair]) -> bool:
    """Return whether the mean ratios of both orders lie on the same side of 1."""
    orders = [[p.ratio(key) for p in pairs if p.baseline_first is first] for first in (True, False)]
    ratios = [process_interval(ratios).median for ratios in orders]
    return max(ratios) < 1 or min(ratios) > 1


def _other_network(key: str, pair: Pair) -> list[str]:
    """Return a remark if the two networks of a name have different numbers of multiply-adds."""
    macs = [side.speeds[key].macs for side in pair.sides]
    if None in macs or macs[0] == macs[1]:
        return []
    counts = [f"{n:,} in {side.name}" for n, side in zip(macs, pair.sides, strict=True)]
    return [f"{key}: the networks differ, multiply-adds are {' and '.join(counts)}."]


def undecided_remark(changes: Sequence[Change], threshold: float) -> str | None:
    """Say which slowdown intervals as wide as the undecided ones show; None if all are decided."""
    # The interval of a smaller one would reach above 1 - threshold.
    found = sorted(
        1 - (1 - threshold) * change.ratio / change.high
        for change in changes
        if change.verdict == "undecided" and change.reason is None
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


def _ratios(
    before: ComparedSpeed, now: ComparedSpeed
) -> tuple[tuple[float, float, float], tuple[float, float, float]] | None:
    """Return both ratios to the same reference; None without, or of that reference itself."""
    is_reference = before.is_reference or now.is_reference
    if before.reference != now.reference or (is_reference and before.machine == now.machine):
        return None
    return (before.relative, now.relative) if before.relative and now.relative else None


def _change(
    key: str,
    before: ComparedSpeed,
    now: ComparedSpeed,
    threshold: float,
    *,
    absolute: bool,
    beside_ratios: bool,
) -> Change:
    """Return one configuration's change; *beside_ratios*: others are compared by their ratios."""
    is_reference = before.is_reference or now.is_reference
    reason = None
    ratios = None if absolute else _ratios(before, now)
    if ratios is not None:
        basis, found = "ratio", ratio_of(ratios[1], ratios[0])
        if min(before.ratio_processes, now.ratio_processes) < FEWEST_PROCESSES:
            reason = _FEW
    else:
        basis, found = "images/s", ratio_of(now.measured, before.measured)
        single = not (before.repeated and now.repeated)
        if absolute:
            reason = None if before.has_interval and now.has_interval else _NO_INTERVAL
        elif min(before.processes, now.processes) < FEWEST_PROCESSES:
            reason = "images/s of fewer than six processes; --absolute judges them all the same"
            if is_reference:
                reason = f"the reference: {reason}"
        elif single and is_reference and beside_ratios:
            reason = _SINGLE_REFERENCE
        elif single and threshold < _SINGLE_THRESHOLD:
            reason = _SINGLE
        if before.machine != now.machine:
            reason = "on another machine, with another reference"
    reason = before.busy or now.busy or before.doubt or now.doubt or reason
    ratio, low, high = found
    verdict = "not judged" if reason else _verdict(low, high, threshold)
    return Change(key, ratio, low, high, basis, verdict, reason)


def _warnings(measured: ComparedSpeeds, configurations: Iterable[str]) -> list[str]:
    """Return the distinct warnings of some configurations, each with what it is about.

    That is the measurement, and its configurations where not all of them have the warning.
    """
    found: dict[str, list[str]] = {}
    keys = list(configurations)
    for key in keys:
        for warning in measured.speeds[key].warnings:
            found.setdefault(warning, []).append(key)
    return [
        f"{measured.name}{_named(about, len(keys))}: {warning}." for warning, about in found.items()
    ]


def _warnings_of_processes(processes: Sequence[ComparedSpeeds]) -> list[str]:
    """Return the warnings of one environment's processes, each with what it is about.

    Of those that differ only in figures, the one with the highest figures stands for all.
    """
    found: dict[str, dict[str, set[int]]] = {}  # kind → warning → processes
    about: dict[str, dict[str, None]] = {}
    keys = dict.fromkeys(key for process in processes for key in process.speeds)
    for number, process in enumerate(processes):
        for key, speed in process.speeds.items():
            for warning in speed.warnings:
                kind = _FIGURE.sub("", warning)
                found.setdefault(kind, {}).setdefault(warning, set()).add(number)
                about.setdefault(kind, {})[key] = None
    remarks = []
    for kind, alike in found.items():
        highest = max(alike, key=lambda warning: [float(n) for n in _FIGURE.findall(warning)])
        having = len(set().union(*alike.values()))
        which = f"{having} of {len(processes)} processes{_named(list(about[kind]), len(keys))}"
        remarks.append(f"{processes[0].name}, {which}: {highest}.")
    return remarks


def _named(about: Sequence[str], known: int) -> str:
    """Name the configurations that a warning is about, of *known*, unless it is about all."""
    if len(about) == known:
        return ""
    return f" ({about[0] if len(about) == 1 else f'{len(about)} of {known} configurations'})"


def _nothing_shared(baseline: ComparedSpeeds, candidate: ComparedSpeeds) -> str:
    if baseline.boundaries and not baseline.boundaries & candidate.boundaries:
        both = (", ".join(sorted(s.boundaries)) for s in (baseline, candidate))
        return "the boundaries differ ({} and {}): what is timed is not the same".format(*both)
    return f"{baseline.name} and {candidate.name} have no configuration in common"
