"""The tables of a study: variants, the paper's figures, what was tuned, runs, the same images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from bench.report.findings.answer import range_of_seeds
from bench.report.findings.fastest import rounded
from bench.report.findings.looks import changes, level, look
from bench.report.findings.power import SIGNIFICANCE
from bench.report.findings.statistics import Difference, deviation, variance_ratio
from bench.report.findings.summaries import family_of
from bench.report.findings.wording import counted, p_value
from bench.report.tables.text_table import TextTable
from bench.studies.recipe import LATER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.report.findings.agreement import Agreement
    from bench.report.findings.statistics import Estimate
    from bench.report.findings.summaries import ContrastSummary, VariantSummary
    from bench.store import RunRecord, StudyRecord

COLUMNS = (
    "variant",
    "test accuracy %",
    "difference (points)",
    "p (adjusted)",
    "train accuracy %",
    "parameters",
    "multiply-adds",
    "images/s",
)
SAME_IMAGES = (
    "Each row compares two trained networks on the same test images by McNemar's exact test. The "
    "test does not include the variation between random seeds, so it says nothing about the design "
    "by itself; the difference over seeds above does. Where the networks of one design "
    "differ from seed to seed as often as they differ from the reference, these rows tell you "
    "nothing new. P-values are not corrected for the number of rows."
)
COMPARED = (
    "Detectable is the difference that would be significant with 80 % power at this number of "
    "seeds, and seeds needed are those of an undecided one if the observed difference is the true "
    "one. P(better) is the probability that the first is the more accurate one with a new seed, "
    "if differences are normal (Bouthillier et al. 2021), with an interval of the level of the "
    "difference's; of a contrast, that the sum is above zero. The correlation is that of the "
    "accuracies of both over seeds: pairing by seed narrows an interval only if it is positive."
)
SPREAD = (
    "Standard deviation of the test accuracy over seeds, with its 95 % interval from the χ² "
    "distribution, and its square as a share of that of the variant's reference, with that of the "
    "F distribution. Both assume normally distributed accuracies, and hold for each row alone."
)
NO_CLAIM = "no claim"
TESTS = {"paired": "the t-test, paired by seed", "welch": "Welch's t-test"}
PUBLISHED = (
    "Errors are top-1, of the test set. Differences are of accuracy, from the variant that each is "
    "compared with: a positive one is better. The settings differ, so compare the differences, not "
    "the errors."
)
TUNED_BEFORE = (
    "Validation accuracy (%) of one run per value, all with the first random seed of the study's "
    "file, which is also evaluated. Each variant trains with the value that is best for it; test "
    "images have no part in the choice."
)
TUNED = (
    "Mean validation accuracy (%) of the seeds {seeds}, which are not evaluated, ± its standard "
    "error. Each variant trains with the smallest value within one standard error of its best; "
    "test images have no part in the choice."
)
RELIABLE = (
    " Where a seed did not learn (diverged, or at the accuracy of guessing), the mean is of the "
    "others (of one, the error is that of its images only), and where none learned, of those that "
    "did not diverge. The choice is among the values at which most seeds learned."
)


def study_table(summaries: list[VariantSummary], study: StudyRecord) -> TextTable:
    """Return a study's table: accuracies in per cent, differences in points.

    A study that compares training accuracies has two columns more for them, and one with a
    `target_accuracy` a last column of seconds to it.
    """
    table = [list(COLUMNS), *map(_cells, summaries)]
    if any(summary.train_difference for summary in summaries):
        place = COLUMNS.index("train accuracy %") + 1
        added = [["train difference (points)", "train p (adjusted)"]]
        for s in summaries:
            found = _difference(s.train_difference) if s.reference else "reference"
            added.append([found, _corrected_p(s.train_difference)])
        table = [
            [*row[:place], *more, *row[place:]] for row, more in zip(table, added, strict=True)
        ]
    times = [summary.time_to_accuracy for summary in summaries]
    target = next((time.accuracy for time in times if time is not None), None)
    if target is not None:
        last = [f"seconds to {target * 100:.4g} % validation accuracy"]
        last += ["-" if time is None else str(time) for time in times]
        table = [[*row, cell] for row, cell in zip(table, last, strict=True)]
    columns, *rows = map(tuple, table)
    return TextTable(columns, tuple(rows), _note(summaries, study))


def comparisons_table(
    summaries: list[VariantSummary], contrasts: Sequence[ContrastSummary]
) -> TextTable:
    """Return a row for every comparison and contrast: what was found and what could be found."""
    named: list[tuple[str, VariantSummary | ContrastSummary]] = [
        *((f"{s.name} - {s.reference}", s) for s in summaries),
        *((f"{c.name}: {c.formula}", c) for c in contrasts),
    ]
    rows = [
        *(_compared(name, one.difference, one.margin) for name, one in named if one.difference),
        *(
            _compared(f"{name}, training", one.train_difference, one.margin)
            for name, one in named
            if one.train_difference
        ),
    ]
    columns = (
        "comparison",
        "seeds",
        "difference (points)",
        "p (adjusted)",
        "detectable (points)",
        "seeds needed",
        "P(better)",
        "correlation",
    )
    doubted = any(f"({NO_CLAIM})" in row[columns.index("p (adjusted)")] for row in rows)
    why = f" Where it says {NO_CLAIM}, the answer gives the reason." if doubted else ""
    return TextTable(columns, tuple(rows), COMPARED + why)


def _compared(name: str, found: Difference, margin: float | None) -> tuple[str, ...]:
    better = found.superiority
    chance = "-"
    if better is not None and better.low is not None and better.high is not None:
        chance = f"{better.mean:.2f} [{better.low:.2f}, {better.high:.2f}]"
    return (
        name,
        str(found.seeds),
        _difference(found),
        _corrected_p(found),
        _detectable(found),
        range_of_seeds(found) if found.verdict(margin) == "undecided" else "-",
        chance,
        "-" if found.correlation is None else f"{found.correlation:+z.2f}",
    )


def _detectable(found: Difference) -> str:
    if found.detectable is None:
        return "-"
    possible = found.detectable <= found.limit
    return f"{found.detectable * 100:.2f}" if possible else "more than possible"


def _note(summaries: list[VariantSummary], study: StudyRecord) -> str:
    failed = any(summary.failures for summary in summaries)
    values: list[Estimate | Difference | None] = []
    for s in summaries:
        values += [s.test_accuracy, s.train_accuracy, s.difference, s.train_difference]
    differences = [v for v in values if isinstance(v, Difference)]
    doubted = any(d.excludes_zero and d.doubt for d in differences)
    same = any(
        v is not None and v.low is None and v.seeds > 1 and getattr(v, "doubt", None) != "pending"
        for v in values
    )
    parts = (
        "Accuracies are means over seeds ± the half-width of their 95 % t-interval"
        + (
            "; where some runs did not learn, also the median and the worst seed; a run that "
            "diverged counts as chance accuracy."
            if failed
            else "."
        ),
        "A value with (all n seeds) is the same for each seed, so it has no interval."
        if same
        else "",
        (
            f"Differences are in points, with the interval of {TESTS[study.test]}. Intervals and "
            f"p-values of differences are simultaneous for all {_family(study)} "
            "(Bonferroni): the intervals contain all true differences, for new seeds on these test "
            f"images, in {_confidence(study)}, and a p-value is "
            "below 0.05 exactly if its interval excludes zero (significant"
            + (f", except where marked {NO_CLAIM}: the answer gives the reason" if doubted else "")
            + "); n is the number of seeds."
        ),
        _primary_note(study),
        _seeds_note(study),
        "Images/s is training, median over seeds."
        if any(summary.images_per_second for summary in summaries)
        else "",
    )
    return " ".join(filter(None, parts))


def _family(study: StudyRecord) -> str:
    which = "secondary comparisons" if _has_secondary(study) else "comparisons of the study"
    return f"{which}, of test and of training accuracy" if study.compare_training else which


def _has_secondary(study: StudyRecord) -> bool:
    """Return whether a study has a primary comparison and tests others."""
    return study.primary is not None and len(family_of(study)) * (1 + study.compare_training) > 1


def _confidence(study: StudyRecord) -> str:
    """Say in which share of studies all intervals hold: more at a later look.

    With a margin, the others than the primary comparison share half of the level.
    """
    tested = level(study) / (2 if _has_secondary(study) and study.margin is not None else 1)
    share = f"{'95' if tested == SIGNIFICANCE else f'{(1 - tested) * 100:.1f}'} % of studies"
    if study.test == "paired":
        return share
    return f"about {share}, if accuracies of different variants do not correlate over seeds"


def _primary_note(study: StudyRecord) -> str:
    if study.primary is None:
        return ""
    images = "training" if study.primary["accuracy"] == "train" else "test"
    if changes(study):
        when = "which may have been chosen after results were seen"
    elif study.existing_runs:
        when = f"declared {_after_runs(study)}"
    else:
        when = "declared beforehand"
    named = f"The primary comparison, {when}, is {study.primary['name']} in {images} accuracy."
    if not _has_secondary(study):
        return named
    return f"{named} It is tested alone; nothing is claimed of the others unless it is significant."


def _after_runs(study: StudyRecord) -> str:
    return f"when {study.existing_runs} of the study's runs had already ended"


def _seeds_note(study: StudyRecord) -> str:
    """Say which seeds are tested, and how looks at the comparisons count."""
    if len(study.variants) == 1:  # nothing is compared
        return ""
    changed = ""
    if changes(study):
        changed = (
            "; what is compared or how it is tested was changed after results were seen "
            f"({counted(changes(study), 'time')})"
        )
    if study.looks:
        existing = f", which was declared {_after_runs(study)}" if study.existing_runs else ""
        return (
            f"Seeds may be added to this study{existing}{changed}; this is look {look(study)}, and "
            "the error of all looks together is at most 5 %."
        )
    declared = study.declared_seeds
    if not declared:
        return ""
    there = {int(seed) for entry in study.variants.values() for seed in entry["runs"]}
    named = f"The {'seed' if len(declared) == 1 else 'seeds'} {', '.join(map(str, declared))}"
    were = "was" if len(declared) == 1 else "were"
    others = "; others count in the means, but are not tested." if there - set(declared) else "."
    when = "beforehand"
    if study.earlier_looks:
        looks = counted(study.earlier_looks, "look")
        when = f"after {looks} at results with other seeds or settings"
    elif study.existing_runs:
        when = _after_runs(study)
    declaration = f"{named} {were} declared {when}{changed}"
    if look(study) == 1:
        return f"{declaration}{others}"
    return (
        f"{declaration}, so this is look {look(study)}, tested at {level(study):.4f} instead of "
        "0.05 (p-values are multiplied accordingly): with a first look at 0.05, the error of all "
        f"looks together is at most 7 %{others}"
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
            published = f"{errors[s.reference] - errors[s.name]:+z.2f}" if known else ""
            found = _difference(s.difference)
        rows.append((s.name, f"{errors[s.name]:.2f}", published, here, found))
    return TextTable(columns, tuple(rows), PUBLISHED)


def settings_table(study: StudyRecord, records: Mapping[str, RunRecord]) -> TextTable:
    """Return what differs between variants: a row per variant, a column per setting.

    The values are those of each variant's first run that has a record; no row if none differs.
    Those of training have no effect on an imported network, and are left out in its row.
    """
    found = _first_records(study, records)
    settings = [_settings(record.request) for record in found.values()]
    keys = dict.fromkeys(key for values in settings for key in values)
    differing = [k for k in keys if len({_setting(values.get(k)) for values in settings}) > 1]
    if not differing:
        return TextTable(("variant",), ())
    rows = [
        (name, *(_setting(_settings(record.settings).get(key)) for key in differing))
        for name, record in found.items()
    ]
    columns = ("variant", *(key.replace("_", " ") for key in differing))
    return TextTable(columns, tuple(rows), "All other settings are the same.")


def _first_records(study: StudyRecord, records: Mapping[str, RunRecord]) -> dict[str, RunRecord]:
    """Return each variant's first run that has a record."""
    return {
        name: record
        for name, entry in study.variants.items()
        if (record := next((records[r] for r in entry["runs"].values() if r in records), None))
    }


def spread_table(
    summaries: Sequence[VariantSummary], study: StudyRecord, records: Mapping[str, RunRecord]
) -> TextTable:
    """Return how far seeds lie apart by what they vary; no row where they all vary the same."""
    varied = {
        name: str(record.request["recipe"].get("seed_varies", LATER["seed_varies"]))
        for name, record in _first_records(study, records).items()
    }
    if len(set(varied.values())) <= 1:
        return TextTable(("variant",), ())
    by_name = {summary.name: summary.test_accuracy for summary in summaries}
    rows = []
    for summary in summaries:
        own, whole = summary.test_accuracy, by_name.get(summary.reference or "")
        spread = deviation(own) if own else None
        share = variance_ratio(own, whole) if own and whole else None
        rows.append(
            (
                summary.name,
                varied.get(summary.name, "-"),
                str(own.seeds) if own else "-",
                "-" if spread is None else _in_hundredths(spread, ".2f"),
                "-" if share is None else _in_hundredths(share, ".0f"),
            )
        )
    columns = (
        "variant",
        "the seed varies",
        "seeds",
        "standard deviation (points)",
        "variance, % of the reference's",
    )
    return TextTable(columns, tuple(rows), SPREAD)


def _in_hundredths(found: tuple[float, float, float], form: str) -> str:
    value, low, high = (format(100 * number, form) for number in found)
    return f"{value} [{low}, {high}]"


def _settings(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request's settings by name, its options and recipe values among them."""
    alone = {k: v for k, v in request.items() if k not in {"seed", "options", "recipe"}}
    return {**alone, **request.get("options", {}), **request.get("recipe", {})}


def _setting(value: Any) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def tuned_table(study: StudyRecord) -> TextTable:
    """Return what was tried: a row per variant, a column per value; no row if nothing was tuned."""
    values = sorted({v for tried in study.tuning.values() for v in tried["values"]}, key=float)
    rows = [
        (name, *(_score(tried, value) for value in values), _taken(tried))
        for name, tried in study.tuning.items()
    ]
    settings = {tried["setting"].replace("_", " ") for tried in study.tuning.values()}
    seeds = {", ".join(map(str, tried.get("seeds", ()))) for tried in study.tuning.values()}
    note = TUNED_BEFORE if "" in seeds else TUNED.format(seeds=" or ".join(sorted(seeds)))
    if any("learned)" in cell for row in rows for cell in row):
        note += RELIABLE
    return TextTable(("variant", *values, f"{' or '.join(settings)} taken"), tuple(rows), note)


def runs_table(study: StudyRecord, records: Mapping[str, RunRecord]) -> TextTable:
    """Return a table with a row for every run of a study that has a record."""
    rows = [
        (
            name,
            seed,
            record.status,
            *(
                "-" if record.result.get("timing_only") else _percent(record.result.get(figure))
                for figure in ("test_accuracy", "train_accuracy")
            ),
            _figure(record.seconds),
            run,
        )
        for name, entry in study.variants.items()
        for seed, run in entry["runs"].items()
        if (record := records.get(run)) is not None
    ]
    columns = (
        "variant",
        "seed",
        "status",
        "test accuracy %",
        "train accuracy %",
        "seconds",
        "run",
    )
    return TextTable(columns, tuple(rows))


def same_images_table(found: Agreement) -> TextTable:
    """Return a table with a row for every two networks compared on the same test images."""
    columns = (
        "variant",
        "reference",
        "seed",
        "images",
        "only the variant right",
        "only the reference right",
        "p (exact)",
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
    return [
        summary.name + (f" ({summary.incomplete})" if summary.incomplete else ""),
        _estimate(summary.test_accuracy) + _spread(summary),
        _difference(summary.difference) if summary.reference else "reference",
        _corrected_p(summary.difference),
        _estimate(summary.train_accuracy),
        _count(summary.parameters),
        _count(summary.macs),
        "-" if summary.images_per_second is None else rounded(summary.images_per_second, 2),
    ]


def _count(value: int | None) -> str:
    """Format with four significant digits and the unit that fits: 11.69 M."""
    if value is None:
        return "-"
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if float(f"{value:.4g}") >= limit:
            return f"{value / limit:.4g} {unit}"
    return str(value)


def _estimate(value: Estimate | None) -> str:
    if value is None:
        return "-"
    mean = f"{value.mean * 100:.2f}"
    if value.possible is None:
        return f"{mean} (1 seed)" if value.seeds == 1 else f"{mean} (all {value.seeds} seeds)"
    low, high = value.possible
    if (low, high) != (value.low, value.high):
        return f"{mean} [{low * 100:.2f}, {high * 100:.2f}]"
    return f"{mean} ± {(high - low) * 50:.2f}"


def _spread(summary: VariantSummary) -> str:
    """Return median and worst seed where some, but not all, of the runs did not learn."""
    found = summary.failures
    if found is None or found.failed in (0, found.runs) or math.isnan(found.median):
        return ""
    return f" (median {found.median * 100:.2f}, worst {found.worst * 100:.2f})"


def _difference(value: Difference | None) -> str:
    """Return a difference in points, with its interval."""
    if value is None:
        return "-"
    mean = f"{value.mean * 100:+z.2f}"
    if value.doubt == "pending":
        return f"{mean} (not all runs have ended)"
    if value.possible is None:
        return f"{mean} (1 seed)" if value.seeds == 1 else f"{mean} (all {value.seeds} seeds)"
    low, high = value.possible
    return f"{mean} [{low * 100:+z.2f}, {high * 100:+z.2f}]"


def _corrected_p(value: Difference | None) -> str:
    if value is None or value.p_value is None:
        return ""
    doubted = value.excludes_zero and value.doubt
    return _p_value(value.p_value) + (f" ({NO_CLAIM})" if doubted else "")


def _p_value(value: float) -> str:
    sign, number = p_value(value)
    return f"<{number}" if sign == "<" else number


def _figure(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else rounded(value)


def _percent(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value * 100:.2f}"


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
    error = tried.get("standard_errors", {}).get(value)
    learned = tried.get("learned", {}).get(value)  # which older records do not have
    seeds = len(tried.get("seeds", ()))
    return (
        ("-" if score is None else f"{score * 100:.2f}")
        + ("" if error is None else f" ± {error * 100:.2f}")
        + ("" if learned in {None, seeds} else f" ({learned} of {seeds} learned)")
    )
