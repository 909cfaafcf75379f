"""A study's report in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.store.runs import short_name

if TYPE_CHECKING:
    from rich.console import Console

    from bench.report.pages.study_report import StudyReport

_NEEDED = 3  # columns: variant, accuracy, difference


def print_report(report: StudyReport, console: Console) -> None:
    """Print a study's question, tables, failures and answer."""
    console.print()
    console.print(report.study.question, style="bold", markup=False)
    if report.study.source:
        console.print(f"({report.study.source})", markup=False)
    console.print(report.table.to_terminal(needed=_NEEDED))
    console.print(report.table.note, style="dim", markup=False)
    if report.tuned:
        console.print()
        console.print(report.tuned.to_terminal())
        console.print(report.tuned.note, style="dim", markup=False)
    if report.equal_weights:
        console.print(report.equal_weights, markup=False)
    console.print()
    for failure in report.failures:
        if failure.run and failure.recorded:
            name = short_name(failure.run, report.data.places[failure.run][0])
            console.print(f"{name}: {failure.status}: {failure.why}", markup=False)
    console.print(report.answer, style="bold", markup=False)
    for line in report.outlook:
        console.print(line, markup=False)
