"""The paper's own figures beside a study's."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.report.findings.answer import VariantSummary
    from bench.store import StudyRecord

HEADINGS = (
    "variant", "published error %", "published difference (points)", "error % here",
    "difference here (points)",
)  # fmt: skip
NOTE = (
    "Errors are top-1, of the test set. Differences are of accuracy, from the variant that each is "
    "compared with, so that a positive one is better. The settings differ: compare what the "
    "differences say, not the errors."
)


def published_cells(study: StudyRecord, summaries: list[VariantSummary]) -> list[list[str]]:
    """Return the paper's figures and ours as text, headings first.

    Args:
        study: the study; without `published` there is no row.
        summaries: of its variants; those that the paper has no figure of are left out.
    """
    errors: dict[str, float] = (study.published or {}).get("top1_error", {})
    rows = []
    for summary in summaries:
        if summary.name in errors:
            error, reference = errors[summary.name], errors.get(summary.reference or "")
            change = "" if reference is None else f"{reference - error:+.2f}"
            rows.append([
                summary.name, f"{error:.2f}", change if summary.reference else "reference",
                *_here(summary),
            ])  # fmt: skip
    return [list(HEADINGS), *rows] if rows else []


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
