"""The tables of a study: variants, the paper's figures, what was tuned, runs, the same images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from bench.report.tables.text_table import TextTable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.report.findings.agreement import Agreement
    from bench.report.findings.answer import VariantSummary
    from bench.report.findings.statistics import Difference, Estimate
    from bench.store import RunRecord, StudyRecord

COLUMNS = (
    "variant",
    "parameters",
    "multiply-adds",
    "test accuracy %",
    "difference (points)",
    "p (Holm)",
    "train accuracy %",
    "images/s",
)
SAME_IMAGES = (
    "Each row compares two trained networks on the same test images by McNemar's exact test. The "
    "test does not include the variation between random seeds, so it says nothing about the design "
    "by itself; the paired difference over seeds above does. Where the networks of one design "
    "differ from seed to seed as often as they differ from the reference, these rows tell you "
    "nothing new."
)
PUBLISHED = (
    "Errors are top-1, of the test set. Differences are of accuracy, from the variant that each is "
    "compared with: a positive one is better. The settings differ, so compare the differences, not "
    "the errors."
)
TUNED = (
    "Validation accuracy (%) of one run per value, all with the first random seed of the study's "
    "file. Each variant trains with the value that is best for it; test images have no part in the "
    "choice."
)
_METHODS = {
    "t": "the paired t-test",
    "bootstrap": "the BCa bootstrap (p-values of the sign-flip permutation test)",
}


def study_table(summaries: list[VariantSummary]) -> TextTable:
    """Return a study's table: accuracies in per cent, differences in points.

    A study that compares training accuracies has two columns more for them, and one with a
    `target_accuracy` a last column of seconds to it.
    """
    table = [list(COLUMNS), *map(_cells, summaries)]
    if any(summary.train_difference for summary in summaries):
        place = COLUMNS.index("train accuracy %") + 1
        added = [["train difference (points)", "train p (Holm)"]]
        for s in summaries:
            found = _difference(s.train_difference) if s.reference else "reference"
            added.append([found, _corrected_p(s.train_difference)])
        table = [
            [*row[:place], *more, *row[place:]] for row, more in zip(table, added, strict=True)
        ]
    times = [summary.time_to_accuracy for summary in summaries]
    target = next((time.accuracy for time in times if time is not None), None)
    if target is not None:
        last = [f"seconds to {target:.4g} validation accuracy"]
        last += ["-" if time is None else str(time) for time in times]
        table = [[*row, cell] for row, cell in zip(table, last, strict=True)]
    columns, *rows = map(tuple, table)
    return TextTable(columns, tuple(rows), _note(summaries))


def methods(summaries: list[VariantSummary]) -> str:
    """Name the tests behind the intervals of differences."""
    used = {s.difference.method for s in summaries if s.difference} or {"t"}
    return " or ".join(words for name, words in _METHODS.items() if name in used)


def _note(summaries: list[VariantSummary]) -> str:
    return (
        "Accuracies are means over seeds ± the half-width of their 95 % t-interval; differences "
        f"are paired by seed, in points, with the 95 % interval of {methods(summaries)}; p-values "
        "are Holm-corrected. A difference is significant if its interval excludes zero and its "
        "p-value is below 0.05; n is its number of seeds. Images/s is training, median over seeds."
    )


def published_table(study: StudyRecord, summaries: list[VariantSummary]) -> TextTable:
    """Return the paper's figures beside ours.

    Args:
        study: the study; without `published` there is no row.
        summaries: of its variants; those that the paper has no figure of are left out.
    """
    columns = (
        "variant",
        "published error %",
        "published difference (points)",
        "error % here",
        "difference here (points)",
    )
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
            found = _difference(s.difference)
        rows.append((s.name, f"{errors[s.name]:.2f}", published, here, found))
    return TextTable(columns, tuple(rows), PUBLISHED)


def tuned_table(study: StudyRecord) -> TextTable:
    """Return what was tried: a row per variant, a column per value; no row if nothing was tuned."""
    values = sorted({v for tried in study.tuning.values() for v in tried["values"]}, key=float)
    rows = [
        (name, *(_score(tried, value) for value in values), _taken(tried))
        for name, tried in study.tuning.items()
    ]
    settings = {tried["setting"].replace("_", " ") for tried in study.tuning.values()}
    return TextTable(("variant", *values, f"{' or '.join(settings)} taken"), tuple(rows), TUNED)


def runs_table(study: StudyRecord, records: Mapping[str, RunRecord]) -> TextTable:
    """Return a table with a row for every run of a study that has a record."""
    figures = ("test_accuracy", "train_accuracy")
    rows = [
        (
            name,
            seed,
            record.status,
            *(
                "-" if record.result.get("timing_only") else _figure(record.result.get(f))
                for f in figures
            ),
            _figure(record.seconds),
            run,
        )
        for name, entry in study.variants.items()
        for seed, run in entry["runs"].items()
        if (record := records.get(run)) is not None
    ]
    return TextTable(("variant", "seed", "status", *figures, "seconds", "run"), tuple(rows))


def same_images_table(found: Agreement) -> TextTable:
    """Return a table with a row for every two networks compared on the same test images."""
    columns = (
        "variant",
        "reference",
        "seed",
        "images",
        "only the variant right",
        "only the reference right",
        "p (exact, Holm)",
    )
    rows = [
        (
            row.variant,
            row.reference,
            str(row.seed),
            f"{row.found.images:,}",
            str(row.found.only_first),
            str(row.found.only_second),
            _p_value(row.found.p_value),
        )
        for row in found.comparisons
    ]
    return TextTable(columns, tuple(rows), SAME_IMAGES)


def _cells(summary: VariantSummary) -> list[str]:
    notes = [f"{n} {status.replace('_', ' ')}" for status, n in summary.statuses.items()]
    return [
        summary.name + (f" ({', '.join(notes)})" if notes else ""),
        _count(summary.parameters),
        _count(summary.macs),
        _estimate(summary.test_accuracy),
        _difference(summary.difference) if summary.reference else "reference",
        _corrected_p(summary.difference),
        _estimate(summary.train_accuracy),
        "-" if summary.images_per_second is None else f"{summary.images_per_second:,.0f}",
    ]


def _count(value: int | None) -> str:
    """Format with four significant digits and the unit that fits: 11.69 M."""
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
    """Return a difference in points, with its interval."""
    if value is None:
        return "-"
    mean = f"{value.mean * 100:+.2f}"
    if value.low is None or value.high is None:
        return f"{mean} (1 seed)" if value.seeds == 1 else f"{mean} (no spread over seeds)"
    return f"{mean} [{value.low * 100:+.2f}, {value.high * 100:+.2f}]"


def _corrected_p(value: Difference | None) -> str:
    return "" if value is None or value.p_value is None else _p_value(value.p_value)


def _p_value(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"  # noqa: PLR2004 - APA style


def _figure(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.4g}"


def _taken(tried: dict[str, Any]) -> str:
    """Name the value that was taken, and whether it is an end of the range that was tried."""
    chosen = tried["chosen"]
    if chosen is None:
        return "not known yet"
    values = sorted(map(float, tried["values"]))
    ends = {values[0]: ", the smallest tried", values[-1]: ", the largest tried"}
    return f"{chosen}{ends.get(chosen, '') if len(values) > 1 else ''}"


def _score(tried: dict[str, Any], value: str) -> str:
    if value not in tried["values"]:
        return ""
    score = tried["values"][value]
    return "-" if score is None else f"{score * 100:.2f}"
