"""Tables of a configuration's speed over repeated measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.report.findings.history import FEWEST, SIGNIFICANT
from bench.report.tables.text_table import TextTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.report.findings.history import History, Step

_COLUMNS = ("date", "images/s", "ratio to reference", "changed since the one before", "step")


def history_text(history: History) -> TextTable:
    """Return one line per measurement: figures, what changed in the environment, and steps."""
    return TextTable(
        _COLUMNS,
        tuple(
            (
                record.created_at[:16].replace("T", " "),
                _interval(row, "images_per_second", "ci_low", "ci_high", ",.4g"),
                "reference"
                if row["difference"] == "reference"
                else _interval(row, "ratio", "ratio_low", "ratio_high", ".3f"),
                "; ".join(history.changes(place)),
                "; ".join(_steps(history, place)),
            )
            for place, (record, row) in enumerate(zip(history.records, history.rows, strict=True))
        ),
    )


def history_lines(history: History) -> list[str]:
    """Say how many steps there are, or why there can be none."""
    count = len(history.rows)
    if count < FEWEST:
        return [f"{count} measurements; steps are looked for from {FEWEST} on."]
    if history.ratio_steps or history.speed_steps:
        return [f"Steps by circular binary segmentation, p ≤ {SIGNIFICANT:g}."]
    return [f"No step (circular binary segmentation, p ≤ {SIGNIFICANT:g})."]


def _steps(history: History, place: int) -> list[str]:
    def shown(name: str, steps: Sequence[Step]) -> list[str]:
        return [f"{name} × {s.ratio:.3f} (p = {s.p:.2g})" for s in steps if s.place == place]

    return [*shown("ratio", history.ratio_steps), *shown("images/s", history.speed_steps)]


def _interval(row: dict[str, Any], value: str, low: str, high: str, form: str) -> str:
    if row[value] is None:
        return ""
    if row[low] is None or row[high] is None:
        return format(row[value], form)
    return f"{row[value]:{form}} [{row[low]:{form}}, {row[high]:{form}}]"
