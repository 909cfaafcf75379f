"""The sentences that answer a study's question, from its summaries alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.report.findings.power import MOST_SEEDS, POWER
from bench.report.findings.wording import (
    MISSING,
    MOST_NAMED,
    NOT_PRIMARY,
    counted,
    first_named,
    interval_name,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.report.findings.statistics import Difference
    from bench.report.findings.summaries import ContrastSummary, Failures, VariantSummary

    Compared = Sequence[tuple[VariantSummary, Difference]]

_CONTRAST_DOUBTS = {
    "pending": "{} is not tested before all of its runs have ended",
    "missing": f"no claim is made about {{}}, because {MISSING}",
    "secondary": f"no claim is made about {{}}, because {NOT_PRIMARY}",
}
_A_FEW = 5  # comparisons with their figures in one sentence
_A_PARAGRAPH = 3  # sentences; more are easier to read as a list


def answer(summaries: list[VariantSummary], contrasts: Sequence[ContrastSummary] = ()) -> str:
    """Answer the study's question in one sentence made from the numbers.

    A variant is called significantly better or worse only if its difference is
    `Difference.significant`, and equivalent only if the interval lies within the study's margin;
    otherwise the sentence says that there is no significant difference. Where the study compares
    training accuracies, a sentence about them follows.
    """
    texts = ["; ".join(clauses) for clauses in _clauses(summaries, contrasts) if clauses]
    return " ".join(_sentence(text, summaries, contrasts) for text in texts)


def statements(
    summaries: list[VariantSummary], contrasts: Sequence[ContrastSummary] = ()
) -> list[str]:
    """Return `answer` and `outlook` for a page: one paragraph, or a list if that would be long."""
    single = [
        _sentence(clause, summaries, contrasts)
        for part in _clauses(summaries, contrasts)
        for clause in part
    ]
    more = outlook(summaries, contrasts)
    if len(single) + len(more) > _A_PARAGRAPH:
        return [*single, *more]
    return [" ".join([answer(summaries, contrasts), *more])]


def _clauses(
    summaries: list[VariantSummary], contrasts: Sequence[ContrastSummary]
) -> list[list[str]]:
    """Return what the numbers say about test accuracies, and then about training accuracies."""
    compared = [(s, s.difference) for s in summaries if s.reference and s.difference]
    tested = [
        *_significant(compared, "test"),
        *_contrast_clauses(contrasts, "test"),
        *first_named(
            [
                _absence(summary)
                for summary in summaries
                if summary.difference is None
                and (summary.reference or summary.test_accuracy is None)
            ],
            "more cannot be compared",
        ),
        *first_named(
            [
                f"{s.name} has a result for {counted(s.test_accuracy.seeds, 'seed')} only "
                f"({_statuses(s)})"
                for s in summaries
                if s.test_accuracy is not None and _without_result(s)
            ],
            "more have unfinished runs",
        ),
        *_undecided(compared),
    ]
    doubts = [
        f"{s.name} is hardly better than guessing ({s.chance:.0%}): it may not have trained at all"
        for s in summaries
        if s.chance is not None
    ]
    trained = [(s, s.train_difference) for s in summaries if s.reference and s.train_difference]
    return [
        [
            *(tested or ["there is nothing to compare yet"]),
            *first_named(
                [_failed(s, s.failures) for s in summaries if s.failures], "more failed as well"
            ),
            *first_named(doubts, "more are hardly better than guessing"),
        ],
        [
            *_significant(trained, "training"),
            *_contrast_clauses(contrasts, "training"),
            *_undecided(trained, " in training accuracy"),
        ],
    ]


def _sentence(
    text: str, summaries: list[VariantSummary], contrasts: Sequence[ContrastSummary]
) -> str:
    names = [*(s.name for s in summaries), *(c.name for c in contrasts)]
    named = any(text.startswith(name) for name in names)  # a name keeps its small first letter
    return f"{text if named else text[0].upper() + text[1:]}."


def outlook(
    summaries: list[VariantSummary], contrasts: Sequence[ContrastSummary] = ()
) -> list[str]:
    """Say which difference each undecided comparison could have found, and with how many seeds.

    The numbers of seeds assume that the observed difference is the true one; they are a range,
    because the standard deviation is not known well. Nothing is said where there is no spread.
    """
    compared = [
        *((f"{s.name} and {s.reference}", s.difference, s.margin) for s in summaries),
        *((c.name, c.difference, c.margin) for c in contrasts),
    ]
    needed = [
        f"{name} {_detectable(d)} ({d.mean * 100:+.2f}, {_seeds(d)})"
        for name, d, margin in compared
        if d and not d.significant and d.doubt is None and not d.equivalent(margin) and d.detectable
    ]
    words = (
        f"Differences that these seeds would find with {POWER * 100:.0f} % power (in brackets the "
        "observed difference, and the seeds that it needs if it is the true one): "
        f"{', '.join(first_named(needed, 'more in the table', _A_FEW))}."
    )
    return [words] if needed else []


def _detectable(difference: Difference) -> str:
    found = difference.detectable or 0
    return "more than is possible" if found > difference.limit else f"{found * 100:.1f} points"


def _seeds(difference: Difference) -> str:
    few, many = difference.seeds_needed or (None, None)
    if few is None:
        return f"more than {MOST_SEEDS}"
    if many is None:
        return f"{few} to more than {MOST_SEEDS}"
    return f"{few}" if few == many else f"{few} to {many}"


def _significant(compared: Compared, which: str) -> list[str]:
    """Say of every significant difference how large it is."""
    differing = [(s, d) for s, d in compared if d.significant]
    if len(differing) > MOST_NAMED:
        differing.sort(key=lambda pair: -abs(pair[1].mean))
    return first_named(
        [
            f"{summary.name} is significantly {'better' if d.mean > 0 else 'worse'} than "
            f"{summary.reference}, by {abs(d.mean) * 100:.1f} points of {which} accuracy "
            f"({_interval(d)})"
            f"{_negligible(d, summary.margin)}"
            for summary, d in differing
        ],
        "more differ significantly, by less",
    )


def _negligible(difference: Difference, margin: float | None) -> str:
    if margin is None or not difference.equivalent(margin):
        return ""
    return f", yet equivalent within ±{margin * 100:g} points"


def _contrast_clauses(contrasts: Sequence[ContrastSummary], which: str) -> list[str]:
    texts = []
    for contrast in contrasts:
        d = contrast.difference if which == "test" else contrast.train_difference
        name = f"{contrast.name} ({contrast.formula})"
        if d is None:
            if which == "test":
                texts.append(f"{name} {contrast.absence}")
        elif d.doubt is not None:
            texts.append(_CONTRAST_DOUBTS[d.doubt].format(name))
        else:
            size = f"{d.mean * 100:+.1f} points of {which} accuracy ({_signed_interval(d)})"
            texts.append(f"{name} is {size}, {_verdict(d, contrast.margin)}")
    return texts


def _verdict(difference: Difference, margin: float | None) -> str:
    if difference.seeds == 1:
        return "which cannot be tested with one seed"
    if difference.deviation is None:
        return "the same for each seed, which cannot be tested"
    if difference.significant:
        return f"which differs significantly from zero{_negligible(difference, margin)}"
    if difference.equivalent(margin):
        return f"which is equivalent to zero within ±{(margin or 0) * 100:g} points"
    return "which does not differ significantly from zero"


def _signed_interval(difference: Difference) -> str:
    ends = ""
    if difference.possible is not None:
        low, high = difference.possible
        ends = f"{interval_name(alone=difference.alone)} {low * 100:+z.1f} to {high * 100:+z.1f}, "
    return f"{ends}n = {difference.seeds}"


def _interval(difference: Difference) -> str:
    """Return an interval that excludes zero, its ends without their sign."""
    assert difference.possible is not None  # noqa: S101 - significant
    low, high = sorted(map(abs, difference.possible))
    ends = f"{low * 100:.1f} to {high * 100:.1f}"
    return f"{interval_name(alone=difference.alone)} {ends}, n = {difference.seeds}"


def _undecided(compared: Compared, what: str = "") -> list[str]:
    """Say which variants are equivalent, not compared yet, or not significantly different."""
    open_ = [(s, d) for s, d in compared if not d.significant]
    equal = [(s, d) for s, d in open_ if d.equivalent(s.margin)]
    untested = [(s, d) for s, d in open_ if d.deviation is None and d.doubt is None]
    single = [(s, d) for s, d in untested if d.seeds == 1]
    same = [(s, d) for s, d in untested if d.seeds > 1]
    pending = [(s, d) for s, d in open_ if d.doubt == "pending"]
    missing = [(s, d) for s, d in open_ if d.doubt == "missing"]
    secondary = [(s, d) for s, d in open_ if d.doubt == "secondary"]
    named = [pair for group in (equal, untested, pending, missing, secondary) for pair in group]
    unclear = [pair for pair in open_ if pair not in named]
    texts = first_named(
        [
            f"{s.name} and {s.reference} are equivalent{what} within ±{(s.margin or 0) * 100:g} "
            f"points ({_signed_interval(d)})"
            for s, d in equal
        ],
        "more are equivalent",
    )
    if unclear:
        texts.append(
            f"there is no significant difference{what} between "
            f"{_pairs(unclear, compared)} (n = {_counts(unclear)})"
        )
    for why, pairs in (
        ("with one seed", single),
        ("that is the same for each seed", same),
    ):
        if pairs:
            amounts = [f"{s.name} and {s.reference} ({d.mean * 100:+.2f} points)" for s, d in pairs]
            texts.append(
                f"no difference{what} can be tested {why}: "
                f"{', '.join(first_named(amounts, 'more', _A_FEW))}"
            )
    if missing:
        texts.append(
            f"no claim is made{what} about {_pairs(missing, compared)}, because the one that seems "
            "better lacks results, and with chance accuracy in their place the difference is not "
            "significant"
        )
    if secondary:
        texts.append(
            f"no claim is made{what} about {_pairs(secondary, compared)}, because {NOT_PRIMARY}"
        )
    if pending:
        texts.append(
            f"{_pairs(pending, compared, ' and ')} are not compared{what} before all of their runs "
            "have ended"
        )
    return texts


def _pairs(pairs: Compared, compared: Compared, last: str = " or ") -> str:
    names = [f"{s.name} and {s.reference}" for s, _ in pairs]
    if len(names) > MOST_NAMED:
        of = "all" if len(names) == len(compared) else f"{len(names)} of"
        return f"{of} {len(compared)} variants and their references"
    return ", ".join(names[:-1]) + (last if len(names) > 1 else "") + names[-1]


def _counts(pairs: Compared) -> str:
    low, high = min(d.seeds for _, d in pairs), max(d.seeds for _, d in pairs)
    return f"{low} to {high}" if low < high else f"{low}"


def _failed(summary: VariantSummary, found: Failures) -> str:
    """Say how many runs of a variant did not learn, against its reference's."""
    rate = f"{summary.name} did not learn in {found.failed} of {counted(found.runs, 'run')}"
    if found.p_value is None:
        return f"{rate} (diverged, or at chance accuracy)"
    p = "< 0.001" if found.p_value < 0.001 else f"= {found.p_value:.3f}"  # noqa: PLR2004
    return (
        f"{rate} (diverged, or at chance accuracy; against {summary.reference}'s rate, Fisher's "
        f"exact test, uncorrected, gives p {p})"
    )


def _without_result(summary: VariantSummary) -> bool:
    """Return whether a run has no result; one that diverged counts as chance, if that is known."""
    found, failures = summary.test_accuracy, summary.failures
    counts = found is not None and failures is not None and found.seeds == failures.runs
    return any(status != "diverged" or not counts for status in summary.statuses)


def _statuses(summary: VariantSummary) -> str:
    return ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in summary.statuses.items())


def _absence(summary: VariantSummary) -> str:
    if summary.test_accuracy is None and summary.statuses:
        return f"{summary.name} has no result to compare ({_statuses(summary)})"
    if summary.timing_only:
        return f"{summary.name} has no accuracy (its images are synthetic, for timing only)"
    if summary.test_accuracy is None and summary.parameters is not None:
        return f"{summary.name} has no accuracy (its runs recorded no number)"
    if summary.test_accuracy is not None:
        return f"{summary.name} cannot be compared ({summary.reference} shares no tested seed)"
    return f"{summary.name} has no result yet"
