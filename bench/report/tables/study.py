"""Tables for a person's terminal and rows for a program."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from bench.report.findings.answer import VariantSummary
    from bench.report.findings.statistics import Difference, Estimate


HEADINGS = (
    "variant", "parameters", "multiply-adds", "test accuracy %", "difference (points)",
    "p (Holm)", "train accuracy %", "images/s",
)  # fmt: skip


def study_cells(summaries: list[VariantSummary]) -> list[list[str]]:
    """A study's table as text, headings first: accuracies in per cent, differences in points.

    A study that compares training accuracies has two columns more for them, and one with a
    `target_accuracy` a last column of seconds to it.
    """
    table = [list(HEADINGS), *map(_cells, summaries)]
    if any(summary.train_difference for summary in summaries):
        place = HEADINGS.index("train accuracy %") + 1
        added = [["train difference (points)", "train p (Holm)"], *map(_train_cells, summaries)]
        table = [
            [*row[:place], *more, *row[place:]] for row, more in zip(table, added, strict=True)
        ]
    times = [summary.time_to_target for summary in summaries]
    target = next((time.target for time in times if time is not None), None)
    if target is not None:
        last = [f"seconds to {target:.4g} validation accuracy"]
        last += ["-" if time is None else str(time) for time in times]
        table = [[*row, cell] for row, cell in zip(table, last, strict=True)]
    return table


def study_table(summaries: list[VariantSummary]) -> Table:
    """A study's table for a terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    headings, *rows = study_cells(summaries)
    for position, heading in enumerate(headings):
        table.add_column(heading, justify="right" if position else "left")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _cells(summary: VariantSummary) -> list[str]:
    notes = [f"{n} {status.replace('_', ' ')}" for status, n in summary.statuses.items()]
    return [
        summary.name + (f" ({', '.join(notes)})" if notes else ""),
        _count(summary.parameters),
        _count(summary.macs),
        _estimate(summary.test_accuracy),
        _difference(summary.difference) if summary.reference else "reference",
        _p_value(summary.difference),
        _estimate(summary.train_accuracy),
        "-" if summary.images_per_second is None else f"{summary.images_per_second:,.0f}",
    ]


def _train_cells(summary: VariantSummary) -> list[str]:
    if not summary.reference:
        return ["reference", ""]
    return [_difference(summary.train_difference), _p_value(summary.train_difference)]


def _count(value: int | None) -> str:
    """Four significant digits with the unit that fits: 11.69 M."""
    if value is None:
        return "-"
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.4g} {unit}"
    return str(value)


def _estimate(value: Estimate | None) -> str:
    if value is None:
        return "-"
    mean = f"{value.mean * 100:.2f}"
    if value.low is None or value.high is None:
        return f"{mean} (1 seed)"
    return f"{mean} ± {(value.high - value.low) * 50:.2f}"


def _difference(value: Difference | None) -> str:
    if value is None:
        return "-"
    mean = f"{value.mean * 100:+.2f}"
    if value.low is None or value.high is None:
        return f"{mean} (1 seed)" if value.seeds == 1 else f"{mean} (no spread over seeds)"
    return f"{mean} [{value.low * 100:+.2f}, {value.high * 100:+.2f}]"


def _p_value(value: Difference | None) -> str:
    if value is None or value.p_value is None:
        return ""
    return "<0.001" if value.p_value < 0.001 else f"{value.p_value:.3f}"  # noqa: PLR2004 - APA style
