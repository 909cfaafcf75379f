"""Durations as text."""

from __future__ import annotations

import math

# Unit, its seconds, decimal places, and the seconds from which the next unit is used.
_UNITS = (
    ("s", 1, 0, 90),
    ("min", 60, 0, 5400),
    ("h", 3600, 1, 3.6e6),
    ("days", 86400, 0, math.inf),
)


def duration(seconds: float) -> str:
    """Return a readable duration, in the unit that suits it."""
    unit, size, digits, _ = next(known for known in _UNITS if seconds < known[-1])
    return f"{seconds / size:,.{digits}f} {unit}"
