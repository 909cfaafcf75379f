"""A study's report in Markdown: for a repository, a pull request, a CI summary."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bench.report.tables.text_table import markdown_code, markdown_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.report.charts.chart import Chart, Section
    from bench.report.pages.study_report import StudyReport
    from bench.report.tables.text_table import TextTable

DETAILED_ROWS = 200  # a GitHub summary takes 1 MiB


def markdown(report: StudyReport, *, pictures: bool = False) -> str:
    """Return a study's report in Markdown: question, answer, tables, and how it was made.

    Args:
        report: the report.
        pictures: refer to `study.svg` and to the charts of `report.further`, which lie beside the
            page under their keys; without, the page stands alone, as a CI summary must.
    """
    study = report.study
    lines = [f"# {markdown_text(study.question)}", ""]
    if study.source:
        lines += [f"After {markdown_text(study.source)}.", ""]
    lines += [*_listed(report.statements), ""]
    lines += [*report.table.to_markdown(), "", report.table.note, ""]
    if pictures:
        lines += ["![Training, test accuracy by seed, and differences](study.svg)", ""]
    lines += [
        *_titled("Comparisons", report.comparisons),
        *_titled("Spread over seeds", report.spreads),
        *_published(report),
        *_titled("What was tuned", report.tuned),
        *_discussion(report),
        *_failures(report),
        *_same_images(report),
        *_collapsed("Every run", report.runs),
        *(_charts(report.further) if pictures else ()),
        "## How it was made",
        "",
    ]
    commands = report.commands if pictures else report.training_commands
    lines += [
        f"- {'then' if place else 'command:'} {markdown_code(command)}"
        for place, command in enumerate(commands)
    ]
    lines += [f"- {name}: {markdown_text(text)}" for name, text in report.provenance]
    return "\n".join(lines) + "\n"


def _listed(texts: Sequence[str]) -> list[str]:
    """Return one text as a paragraph, several as a list."""
    escaped = [markdown_text(text) for text in texts]
    return escaped if len(texts) == 1 else [f"- {text}" for text in escaped]


def _titled(title: str, table: TextTable) -> list[str]:
    if not table:
        return []
    return [f"## {title}", "", *table.to_markdown(), "", table.note, ""]


def _published(report: StudyReport) -> list[str]:
    """Return the paper's own figures beside these, with what differs in the setting."""
    quoted = report.study.published
    if not report.published or quoted is None:
        return []
    heading, blank, *table = _titled("What the paper found", report.published)
    settings = [f"There: {quoted['setting']}", "", f"Here: {quoted['differs']}", ""]
    return [heading, blank, *settings, *table]


def _discussion(report: StudyReport) -> list[str]:
    paragraphs = [line for text in report.study.paragraphs for line in (text, "")]
    return ["## Discussion", "", *paragraphs] if paragraphs else []


def _failures(report: StudyReport) -> list[str]:
    """Name every run that is not complete or cannot be read, with its reason."""
    failed = [failure for failure in report.failures if failure.run]
    if not failed:
        return []
    lines = [f"**{len(failed)} of {len(report.data.places)} runs are not complete:**", ""]
    lines += [
        f"- {markdown_text(f.what)}: {f.status}: {markdown_code(f.why)}"
        for f in failed[:DETAILED_ROWS]
    ]
    left = len(failed) - DETAILED_ROWS
    return [*lines, *([f"- … and {left} more"] if left > 0 else []), ""]


def _same_images(report: StudyReport) -> list[str]:
    """Compare networks on the same test images in sentences, with a collapsed row per seed."""
    notes, sentences = report.data.agreement.notes, report.data.agreement.sentences
    title = ["## The same test images", "", *_listed(sentences), ""] if sentences else []
    if not report.same_images:
        return [*title, *(line for note in notes for line in (markdown_text(note), ""))]
    return [*title, *_collapsed("The same test images, seed by seed", report.same_images, notes)]


def _collapsed(title: str, table: TextTable, notes: Sequence[str] = ()) -> list[str]:
    """Return a table that a reader opens, of at most `DETAILED_ROWS` rows."""
    left = len(table.rows) - DETAILED_ROWS
    return [
        "<details>",
        f"<summary>{title} ({len(table.rows)})</summary>",
        "",
        *([table.note, ""] if table.note else []),
        *table.first(DETAILED_ROWS).to_markdown(),
        *([f"\n… and {left} more."] if left > 0 else []),
        "",
        *(line for note in notes for line in (markdown_text(note), "")),
        "</details>",
        "",
    ]


def picture(chart: Chart) -> list[str]:
    """Return the lines that show a chart, which lies beside the page, with title and caption."""
    title = markdown_text(chart.title)
    alternative = re.sub(r"[\[\]]", r"\\\g<0>", title)
    caption = f"**{title}.** {markdown_text(chart.caption)}"
    return [f"![{alternative}]({chart.key}.svg)", "", caption, ""]


def _charts(sections: Sequence[Section]) -> list[str]:
    lines = []
    for section in sections:
        lines += [f"## {section.title}", ""]
        lines += [line for note in section.notes for line in (markdown_text(note), "")]
        for chart in section.charts:
            lines += picture(chart)
    return lines
