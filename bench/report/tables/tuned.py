"""What a study's `tune` tried for each variant, and what it took."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.store import StudyRecord

NOTE = (
    "Validation accuracy (%) of one run a value, all with the first random seed of the study's "
    "file. Each variant trains with the value that is best for it; test images have no part in the "
    "choice."
)


def tuned_cells(study: StudyRecord) -> list[list[str]]:
    """Return as text what was tried, headings first: a row a variant, a column a value.

    Args:
        study: the study; one that tuned nothing has no row.
    """
    values = sorted({v for tried in study.tuning.values() for v in tried["values"]}, key=float)
    rows = [
        [name, *(_score(tried, value) for value in values), _taken(tried)]
        for name, tried in study.tuning.items()
    ]
    settings = {tried["setting"].replace("_", " ") for tried in study.tuning.values()}
    return [["variant", *values, f"{' or '.join(settings)} taken"], *rows] if rows else []


def tuned_lines(study: StudyRecord) -> list[str]:
    """Say the same in a line a variant."""
    lines = []
    for name, tried in study.tuning.items():
        setting = tried["setting"].replace("_", " ")
        known = tried["chosen"] is not None
        taken = f" takes {setting} {_taken(tried)}" if known else f": no {setting} chosen yet"
        scores = ", ".join(f"{_score(tried, value)} at {value}" for value in tried["values"])
        lines.append(f"{name}{taken}; validation accuracy in %: {scores}")
    return lines


def _end_of_range(tried: dict[str, Any]) -> str | None:
    """Which end was taken, if one was: beyond it may be a better value."""
    values = sorted(map(float, tried["values"]))
    ends = {values[0]: "smallest", values[-1]: "largest"} if len(values) > 1 else {}
    return ends.get(tried["chosen"])


def _taken(tried: dict[str, Any]) -> str:
    if tried["chosen"] is None:
        return "not known yet"
    end = _end_of_range(tried)
    return f"{tried['chosen']}{f', the {end} tried' if end else ''}"


def _score(tried: dict[str, Any], value: str) -> str:
    if value not in tried["values"]:
        return ""
    score = tried["values"][value]
    return "-" if score is None else f"{score * 100:.2f}"
