"""Words that several findings share."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MOST_NAMED = 10  # variants in one sentence; the table has all
UNTESTED = "is not tested before all of its runs have ended"
DOUBTS = {  # why nothing is claimed of a difference
    "pending": "not all of its runs have ended",
    "missing": "results are missing, and in the worst case the difference is not significant",
    "secondary": "the study's primary comparison is not, or not yet, significant",
}


def counted(number: int, what: str) -> str:
    """Return a number with its noun, such as `1 seed` or `3 seeds`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def digits(points: float, sign: str = "") -> str:
    """Return a number of points with one digit, or as many (up to four) as differ from zero."""
    places = next((n for n in range(1, 4) if round(abs(points), n)), 4) if points else 1
    return f"{points:{sign}.{places}f}"


def counted_statuses(statuses: Iterable[str]) -> str:
    """Count how runs ended, such as `2 failed, 1 out of memory`; the most frequent come first."""
    counts = Counter(statuses).most_common()
    return ", ".join(f"{number} {status.replace('_', ' ')}" for status, number in counts)


def first_named(texts: list[str], more: str, most: int = MOST_NAMED) -> list[str]:
    """Return texts about single variants, of too many the first ones and the number of others."""
    left = len(texts) - most
    return texts if left <= 1 else [*texts[:most], f"{left} {more}"]


def p_value(value: float) -> tuple[str, str]:
    """Return `=` and a p-value, or `<` and the smallest one that is written out (APA style)."""
    smallest = 0.001
    return ("<", f"{smallest}") if value < smallest else ("=", f"{value:.3f}")


def formula(weights: Mapping[str, float]) -> str:
    """Return a weighted sum in words, such as `a - 0.5 b - 0.5 c`."""
    terms: list[str] = []
    for name, weight in weights.items():
        factor = "" if abs(weight) == 1 else f"{abs(weight):g} "
        sign = ("- " if terms else "-") if weight < 0 else ("+ " if terms else "")
        terms.append(f"{sign}{factor}{name}")
    return " ".join(terms)


def interval_name(*, alone: bool) -> str:
    """Name an interval: all hold together but that of a primary comparison."""
    return f"95 % interval{' of this comparison alone' if alone else ''}"
