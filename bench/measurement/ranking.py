"""Find the fastest of rows that were measured together, and those that may be as fast."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from bench.system.intervals import FEWEST_PROCESSES

if TYPE_CHECKING:
    from collections.abc import Sequence

    Row = dict[str, Any]

# Rows of one measurement that are equal in these have ratios to the same reference.
_GROUP = ("model", "options", "run", "batch_size", "boundary", "scenario", "reference")


def fastest_of(rows: Sequence[Row], measured: Sequence[Row]) -> tuple[Row, list[Row]]:
    """Return the fastest row, and those whose intervals overlap with its own, fastest first.

    Rows with the same reference are compared by their ratios to it, others (of other networks or
    batch sizes) by their images/s. A row without an interval overlaps with all.

    Args:
        rows: of the `throughput` table, of one measurement, at least one; None where unknown.
        measured: all rows of that measurement.
    """
    groups = Counter(_group(row) for row in measured if row.get("difference") == "reference")

    def paired(one: Row, other: Row) -> bool:
        # Two files of one name look like one group, but each has a reference of its own.
        alike = _group(one) == _group(other) and groups[_group(one)] <= 1
        return alike and _has_ratio(one) and _has_ratio(other)

    ordered = sorted(rows, key=lambda row: -row["images_per_second"])
    rivals = [row for row in ordered if paired(ordered[0], row)]
    best = max(rivals, key=lambda row: row["ratio"]) if rivals else ordered[0]
    others = [row for row in ordered if row is not best]
    return best, [row for row in others if _overlap(best, row, by_ratio=paired(best, row))]


def _group(row: Row) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in _GROUP)


def _has_ratio(row: Row) -> bool:
    """Return whether a row has a ratio whose interval is over enough processes."""
    processes = row.get("ratio_processes") or row.get("processes") or 1
    return row.get("ratio") is not None and processes >= FEWEST_PROCESSES


def _overlap(one: Row, other: Row, *, by_ratio: bool) -> bool:
    low, high = ("ratio_low", "ratio_high") if by_ratio else ("ci_low", "ci_high")
    if any(row.get(end) is None for row in (one, other) for end in (low, high)):
        return True
    return bool(one[low] <= other[high] and other[low] <= one[high])
