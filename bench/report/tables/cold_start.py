"""The table of cold starts: seconds and memory of import, load and first inference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.report.findings.fastest import layout, network_name
from bench.report.tables.text_table import TextTable

if TYPE_CHECKING:
    from collections.abc import Sequence

_COLUMNS = ("network", "backend", "precision", "batch", "phase", "seconds", "MiB afterwards")


def cold_start_text(rows: Sequence[dict[str, Any]]) -> TextTable:
    """Return the complete rows of the `cold_starts` table as text."""
    return TextTable(
        _COLUMNS,
        tuple(
            (
                network_name(row),
                row["backend"] + layout(row),
                row["precision"],
                str(row["batch_size"]),
                row["phase"],
                _interval(row, "seconds", ".3g"),
                _interval(row, "memory_mib", ".0f"),
            )
            for row in rows
            if row["status"] == "complete"
        ),
    )


def cold_start_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return what a reader must know of the figures, and of what there are none."""
    counts = sorted({row["processes"] for row in rows if row["status"] == "complete"})
    number = " to ".join(dict.fromkeys(map(str, (*counts[:1], *counts[-1:]))))
    lines = []
    if counts:
        lines.append(
            f"Cold start, in {number} fresh processes each, page cache warm: the files had been "
            "read before. Memory is of the whole process; 95 % intervals from 6 processes on."
        )
    lines += dict.fromkeys(f"{row['warnings']}." for row in rows if row.get("warnings"))
    reasons = dict.fromkeys(str(row["error"]) for row in rows if row["status"] != "complete")
    return [*lines, *(f"No cold start: {reason}" for reason in reasons)]


def _interval(row: dict[str, Any], name: str, form: str) -> str:
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    return format(value, form) + (f" [{low:{form}}, {high:{form}}]" if low is not None else "")
