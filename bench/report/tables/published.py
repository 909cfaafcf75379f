"""The table that shows the paper's own figures beside a study's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.report.tables.text_table import TextTable

if TYPE_CHECKING:
    from bench.report.findings.answer import VariantSummary
    from bench.store import StudyRecord

_COLUMNS = (
    "variant",
    "published error %",
    "published difference (points)",
    "error % here",
    "difference here (points)",
)
_NOTE = (
    "Errors are top-1, of the test set. Differences are of accuracy, from the variant that each is "
    "compared with: a positive one is better. The settings differ, so compare the differences, not "
    "the errors."
)


def published_table(study: StudyRecord, summaries: list[VariantSummary]) -> TextTable:
    """Return the paper's figures beside ours.

    Args:
        study: the study; without `published` there is no row.
        summaries: of its variants; those that the paper has no figure of are left out.
    """
    errors: dict[str, float] = (study.published or {}).get("top1_error", {})
    rows = [
        (
            summary.name,
            f"{errors[summary.name]:.2f}",
            _published_difference(summary, errors),
            *_here(summary),
        )
        for summary in summaries
        if summary.name in errors
    ]
    return TextTable(_COLUMNS, tuple(rows), _NOTE)


def _published_difference(summary: VariantSummary, errors: dict[str, float]) -> str:
    if not summary.reference:
        return "reference"
    reference = errors.get(summary.reference)
    return "" if reference is None else f"{reference - errors[summary.name]:+.2f}"


def _here(summary: VariantSummary) -> tuple[str, str]:
    accuracy, difference = summary.test_accuracy, summary.difference
    error = "-" if accuracy is None else f"{100 - accuracy.mean * 100:.2f}"
    if summary.reference is None:
        return error, "reference"
    if difference is None:
        return error, "-"
    spread = (
        ""
        if difference.low is None or difference.high is None
        else f" [{difference.low * 100:+.2f}, {difference.high * 100:+.2f}]"
    )
    return error, f"{difference.mean * 100:+.2f}{spread}"
