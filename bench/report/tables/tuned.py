"""The table of what a study's `tune` tried for each variant, and which value it took."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.report.tables.text_table import TextTable

if TYPE_CHECKING:
    from bench.store import StudyRecord

_OLD = (
    "Validation accuracy (%) of one run per value, all with the first random seed of the study's "
    "file, which is also evaluated. Each variant trains with the value that is best for it; test "
    "images have no part in the choice."
)
_NOTE = (
    "Mean validation accuracy (%) of the seeds {seeds}, which are not evaluated, ± its standard "
    "error. Each variant trains with the smallest value within one standard error of its best; "
    "test images have no part in the choice."
)


def tuned_table(study: StudyRecord) -> TextTable:
    """Return what was tried: a row per variant, a column per value; no row if nothing was tuned."""
    values = sorted({v for tried in study.tuning.values() for v in tried["values"]}, key=float)
    rows = [
        (name, *(_score(tried, value) for value in values), _taken(tried))
        for name, tried in study.tuning.items()
    ]
    settings = {tried["setting"].replace("_", " ") for tried in study.tuning.values()}
    columns = ("variant", *values, f"{' or '.join(settings)} taken")
    return TextTable(columns, tuple(rows), _note(study))


def _note(study: StudyRecord) -> str:
    seeds = {", ".join(map(str, tried.get("seeds", ()))) for tried in study.tuning.values()}
    return _OLD if "" in seeds else _NOTE.format(seeds=" or ".join(sorted(seeds)))


def _taken(tried: dict[str, Any]) -> str:
    """Name the value that was taken, and whether it is an end of the range that was tried."""
    chosen = tried["chosen"]
    if chosen is None:
        return "not known yet"
    values = sorted(map(float, tried["values"]))
    ends = {values[0]: ", the smallest tried", values[-1]: ", the largest tried"}
    return f"{chosen}{ends.get(chosen, '') if len(values) > 1 else ''}"


def _score(tried: dict[str, Any], value: str) -> str:
    if value not in tried["values"]:
        return ""
    score = tried["values"][value]
    if score is None:
        return "-"
    error = tried.get("standard_errors", {}).get(value)
    return f"{score * 100:.2f}" + ("" if error is None else f" ± {error * 100:.2f}")
