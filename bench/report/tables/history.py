"""Tables of a configuration's speed over repeated measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.report.findings.fastest import rounded
from bench.report.findings.history import FEWEST, SIGNIFICANT
from bench.report.tables.text_table import TextTable

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.report.findings.history import History

_COLUMNS = ("date", "images/s", "ratio to reference", "changed since the one before", "step")


def history_text(history: History) -> TextTable:
    """Return one line per measurement: figures, what changed in the environment, and steps."""
    return TextTable(
        _COLUMNS,
        tuple(
            (
                record.created_at[:16].replace("T", " "),
                _interval(row, "images_per_second", "ci_low", "ci_high", rounded),
                "reference"
                if row["difference"] == "reference"
                else _interval(row, "ratio", "ratio_low", "ratio_high", "{:.3f}".format),
                "; ".join(history.changes(place)),
                "; ".join(
                    f"ratio × {step.ratio:.3f} (p = {step.p:.2g})"
                    for step in history.steps
                    if step.place == place
                ),
            )
            for place, (record, row) in enumerate(zip(history.records, history.rows, strict=True))
        ),
    )


def history_lines(history: History) -> list[str]:
    """Say how steps were looked for, or why they were not."""
    count = len(history.rows)
    if count < FEWEST:
        return [f"{count} measurements; steps are looked for from {FEWEST} on."]
    if not history.searched:
        return ["Steps are looked for in ratios to one reference only."]
    how = (
        f"(of the ratio, by circular binary segmentation; p ≤ {SIGNIFICANT:g} over all "
        f"{history.searched} series on this page, if measurements' ratios are independent)."
    )
    return [f"Steps {how}" if history.steps else f"No step {how}"]


def _interval(
    row: dict[str, Any], value: str, low: str, high: str, write: Callable[[float], str]
) -> str:
    if row[value] is None:
        return ""
    if row[low] is None or row[high] is None:
        return write(row[value])
    return f"{write(row[value])} [{write(row[low])}, {write(row[high])}]"
