"""The sentences that answer a study's question, from its summaries alone."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from bench.report.findings.power import MOST_SEEDS, POWER
from bench.report.findings.wording import (
    DOUBTS,
    MOST_NAMED,
    UNTESTED,
    counted,
    digits,
    first_named,
    interval_name,
    p_value,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from bench.report.findings.statistics import Difference
    from bench.report.findings.summaries import ContrastSummary, Failures, VariantSummary

    Compared = list[tuple[VariantSummary, Difference]]
    Which = Literal["test", "training"]  # accuracies

_A_FEW = 5  # comparisons with their figures in one sentence
_A_PARAGRAPH = 3  # sentences; more are easier to read as a list


def answer(summaries: list[VariantSummary], contrasts: Sequence[ContrastSummary] = ()) -> str:
    """Answer the study's question in one sentence made from the numbers.

    A variant is called significantly better or worse only if its difference is
    `Difference.significant`, and equivalent only if the interval lies within the study's margin;
    otherwise the sentence says that there is no significant difference. Where the study compares
    training accuracies, a sentence about them follows.
    """
    parts = ["; ".join(clauses) for clauses in _clauses(summaries, contrasts) if clauses]
    return " ".join(_sentence(part, [*summaries, *contrasts]) for part in parts)


def statements(
    summaries: list[VariantSummary], contrasts: Sequence[ContrastSummary] = ()
) -> list[str]:
    """Return `answer` and `outlook` for a page: one paragraph, or a list if that would be long."""
    more = outlook(summaries, contrasts)
    clauses = [clause for part in _clauses(summaries, contrasts) for clause in part]
    if len(clauses) + len(more) > _A_PARAGRAPH:
        return [*(_sentence(clause, [*summaries, *contrasts]) for clause in clauses), *more]
    return [" ".join([answer(summaries, contrasts), *more])]


def _sentence(text: str, named: Sequence[VariantSummary | ContrastSummary]) -> str:
    """Make a sentence of clauses; a name that it begins with keeps its small first letter."""
    begins_with_name = text.startswith(tuple(f"{one.name} " for one in named))
    return f"{text if begins_with_name else text[0].upper() + text[1:]}."


def _clauses(
    summaries: list[VariantSummary], contrasts: Sequence[ContrastSummary]
) -> list[list[str]]:
    """Return what the numbers say about test accuracies, and then about training accuracies."""
    absent = [
        _absence(s)
        for s in summaries
        if s.difference is None and (s.reference or s.test_accuracy is None)
    ]
    unfinished = [
        f"{s.name} has a result for {counted(s.test_accuracy.seeds, 'seed')} only ({s.incomplete})"
        for s in summaries
        if s.test_accuracy is not None and _without_result(s)
    ]
    without = [
        *first_named(absent, "more cannot be compared"),
        *first_named(unfinished, "more have unfinished runs"),
    ]
    rates = [(s, s.failures) for s in summaries if s.failures]
    failed = [_failed(s, found) for s, found in rates if found.failed]
    compared = [_failed(s, found) for s, found in rates if not found.failed]
    guessing = [
        f"{s.name} is hardly better than guessing ({s.guess:.0%}): it may not have trained at all"
        for s in summaries
        if s.guess is not None
    ]
    tested = _comparisons(summaries, contrasts, "test", without)
    return [
        [
            *(tested or ["there is nothing to compare yet"]),
            *first_named(failed, "more failed as well"),
            *first_named(compared, "more did not fail", _A_FEW),
            *first_named(guessing, "more are hardly better than guessing"),
        ],
        _comparisons(summaries, contrasts, "training"),
    ]


def _comparisons(
    summaries: list[VariantSummary],
    contrasts: Sequence[ContrastSummary],
    which: Which,
    without: Sequence[str] = (),
) -> list[str]:
    """Say what was found, with claims first, then *without* (a result), then what is undecided."""
    by_verdict: defaultdict[str, Compared] = defaultdict(list)
    for s in summaries:
        if d := s.difference if which == "test" else s.train_difference:
            by_verdict[d.verdict(s.margin)].append((s, d))
    return [
        *_significant(by_verdict["significant"], which),
        *filter(None, (_contrast(contrast, which) for contrast in contrasts)),
        *without,
        *_undecided(by_verdict, which),
    ]


def _significant(differing: Compared, which: Which) -> list[str]:
    """Say of every significant difference how large it is."""
    if len(differing) > MOST_NAMED:
        differing = sorted(differing, key=lambda pair: -abs(pair[1].mean))
    return first_named(
        [
            f"{s.name} is significantly {'better' if d.mean > 0 else 'worse'} than "
            f"{s.reference}, by {digits(abs(d.mean) * 100)} points of {which} accuracy "
            f"({_interval(d, signed=False)}){_negligible(d, s.margin)}"
            for s, d in differing
        ],
        "more differ significantly, by less",
    )


def _contrast(contrast: ContrastSummary, which: Which) -> str | None:
    """Say what a contrast is; nothing if there is none of training accuracies."""
    d = contrast.difference if which == "test" else contrast.train_difference
    name, margin = f"{contrast.name} ({contrast.formula})", contrast.margin
    what = "" if which == "test" else f" in {which} accuracy"
    if d is None:
        return f"{name} {contrast.absence}" if which == "test" else None
    verdict = d.verdict(margin)
    if verdict == "pending":
        return f"{name}{what} {UNTESTED}"
    if verdict in DOUBTS:
        return f"no claim is made{what} about {name}, because {DOUBTS[verdict]}"
    meaning = {
        "significant": f"which differs significantly from zero{_negligible(d, margin)}",
        "equivalent": f"which is equivalent to zero {_within(margin)}",
        "one seed": "which cannot be tested with one seed",
        "no spread": "the same for each seed, which cannot be tested",
        "undecided": "which does not differ significantly from zero",
    }[verdict]
    size = f"{digits(d.mean * 100, '+z')} points of {which} accuracy"
    return f"{name} is {size} ({_interval(d)}), {meaning}"


def _undecided(by_verdict: defaultdict[str, Compared], which: Which) -> list[str]:
    """Say which variants are equivalent, not compared yet, or not significantly different."""
    what = "" if which == "test" else f" in {which} accuracy"
    total = sum(map(len, by_verdict.values()))
    texts = first_named(
        [
            f"{s.name} and {s.reference} are equivalent{what} {_within(s.margin)} ({_interval(d)})"
            for s, d in by_verdict["equivalent"]
        ],
        "more are equivalent",
    )
    if pairs := by_verdict["undecided"]:
        texts.append(
            f"there is no significant difference{what} between {_pairs(pairs, total)} "
            f"(n = {_counts(pairs)})"
        )
    untested = {"one seed": "with one seed", "no spread": "that is the same for each seed"}
    for verdict, why in untested.items():
        if pairs := by_verdict[verdict]:
            amounts = [
                f"{s.name} and {s.reference} ({d.mean * 100:+z.2f} points)" for s, d in pairs
            ]
            texts.append(
                f"no difference{what} can be tested {why}: "
                f"{', '.join(first_named(amounts, 'more', _A_FEW))}"
            )
    for verdict in ("missing", "secondary"):
        if pairs := by_verdict[verdict]:
            why = f"because {DOUBTS[verdict]}"
            texts.append(f"no claim is made{what} about {_pairs(pairs, total)}, {why}")
    if pairs := by_verdict["pending"]:
        texts.append(
            f"{_pairs(pairs, total, ' and ')} are not compared{what} before all of their runs "
            "have ended"
        )
    return texts


def _pairs(pairs: Compared, total: int, last: str = " or ") -> str:
    names = [f"{s.name} and {s.reference}" for s, _ in pairs]
    if len(names) > MOST_NAMED:
        of = "all" if len(names) == total else f"{len(names)} of"
        return f"{of} {total} variants and their references"
    return ", ".join(names[:-1]) + (last if len(names) > 1 else "") + names[-1]


def _counts(pairs: Compared) -> str:
    low, high = min(d.seeds for _, d in pairs), max(d.seeds for _, d in pairs)
    return f"{low} to {high}" if low < high else f"{low}"


def _interval(difference: Difference, *, signed: bool = True) -> str:
    """Return the interval, if there is one, and the number of seeds."""
    if difference.possible is None:
        return f"n = {difference.seeds}"
    ends = difference.possible if signed else sorted(map(abs, difference.possible))
    low, high = (digits(100 * end, "+z" if signed else "") for end in ends)
    return f"{interval_name(alone=difference.alone)} {low} to {high}, n = {difference.seeds}"


def _negligible(difference: Difference, margin: float | None) -> str:
    return f", yet equivalent {_within(margin)}" if difference.equivalent(margin) else ""


def _within(margin: float | None) -> str:
    return f"within ±{(margin or 0) * 100:g} points"


def _absence(summary: VariantSummary) -> str:
    if summary.test_accuracy is None and summary.statuses:
        return f"{summary.name} has no result to compare ({summary.incomplete})"
    if summary.timing_only:
        return f"{summary.name} has no accuracy (its images are synthetic, for timing only)"
    if summary.test_accuracy is None and summary.parameters is not None:
        return f"{summary.name} has no accuracy (its runs recorded no number)"
    if summary.test_accuracy is not None:
        return f"{summary.name} cannot be compared ({summary.reference} shares no tested seed)"
    return f"{summary.name} has no result yet"


def _without_result(summary: VariantSummary) -> bool:
    """Return whether a run has no result; one that diverged counts as chance, if that is known."""
    found, failures = summary.test_accuracy, summary.failures
    counts = found is not None and failures is not None and found.seeds == failures.runs
    return any(status != "diverged" or not counts for status in summary.statuses)


def _failed(summary: VariantSummary, found: Failures) -> str:
    """Say how many runs of a variant did not learn, against its reference's."""
    against = ""
    if found.p_value is not None:
        against = (
            f"; against {summary.reference}'s rate, Fisher's exact test, uncorrected, gives p "
            + " ".join(p_value(found.p_value))
        )
    return (
        f"{summary.name} did not learn in {found.failed} of {counted(found.runs, 'run')} "
        f"(diverged, or at the accuracy of guessing{against})"
    )


def outlook(
    summaries: list[VariantSummary], contrasts: Sequence[ContrastSummary] = ()
) -> list[str]:
    """Say which difference each undecided comparison could have found, and with how many seeds.

    The numbers of seeds assume that the observed difference is the true one; they are a range,
    because the standard deviation is not known well. Nothing is said where there is no spread.
    """
    named: list[tuple[str, VariantSummary | ContrastSummary]] = [
        *((f"{summary.name} and {summary.reference}", summary) for summary in summaries),
        *((contrast.name, contrast) for contrast in contrasts),
    ]
    compared = [
        *((name, one.difference, one.margin) for name, one in named),
        *((f"{name}, training,", one.train_difference, one.margin) for name, one in named),
    ]
    needed = [
        f"{name} {_detectable(d)} ({d.mean * 100:+z.2f}, {range_of_seeds(d)})"
        for name, d, margin in compared
        if d and d.verdict(margin) == "undecided"
    ]
    words = (
        f"Differences that these seeds would find with {POWER * 100:.0f} % power (in brackets the "
        "observed difference, and the seeds that it needs if it is the true one): "
        f"{', '.join(first_named(needed, 'more in the comparisons of the page', _A_FEW))}."
    )
    return [words] if needed else []


def _detectable(difference: Difference) -> str:
    found = difference.detectable or 0
    return "more than is possible" if found > difference.limit else f"{found * 100:.1f} points"


def range_of_seeds(difference: Difference) -> str:
    """Return the range of seeds that an undecided difference needs if it is the true one."""
    few, many = difference.seeds_needed or (None, None)
    if few is None:
        return f"more than {MOST_SEEDS}"
    if many is None:
        return f"{few} to more than {MOST_SEEDS}"
    return f"{few}" if few == many else f"{few} to {many}"
