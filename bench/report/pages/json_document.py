"""A study's result as a JSON document, the same for every command that writes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.store.tables.frames import rows_of

if TYPE_CHECKING:
    from bench.report.pages.study_report import StudyReport


def json_document(report: StudyReport) -> dict[str, Any]:
    """Return a study's question, answer, comparisons and runs.

    Returns:
        `schema`, `study`, `question`, `answer` (a sentence), `comparisons` and `rows` (the rows of
        the tables `comparisons` and `runs`), and `errors` (the runs that are not complete).
    """
    return {
        "schema": 1,
        "study": report.study.name,
        "question": report.study.question,
        "answer": report.answer,
        "comparisons": rows_of(report.data.comparisons),
        "rows": rows_of(report.data.runs),
        "errors": [
            {"run": record.run, "status": record.status, "error": record.error}
            for record in report.data.records.values()
            if record.status != "complete"
        ],
    }
