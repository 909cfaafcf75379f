"""The table that shows the paper's own figures beside a study's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.report.tables.study import difference_cell
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
    rows = []
    for s in summaries:
        if s.name not in errors:
            continue
        here = "-" if s.test_accuracy is None else f"{100 - s.test_accuracy.mean * 100:.2f}"
        published, found = "reference", "reference"
        if s.reference:
            known = s.reference in errors
            published = f"{errors[s.reference] - errors[s.name]:+.2f}" if known else ""
            found = difference_cell(s.difference)
        rows.append((s.name, f"{errors[s.name]:.2f}", published, here, found))
    return TextTable(_COLUMNS, tuple(rows), _NOTE)
