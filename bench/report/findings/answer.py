"""A study's summaries and the sentences that answer its question, from the numbers alone."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from bench.report.findings.looks import later_level, level
from bench.report.findings.statistics import (
    MOST_SEEDS,
    POWER,
    Difference,
    Estimate,
    chance_interval,
    compare,
    counted,
    estimate,
    failure_p_value,
)
from bench.report.findings.time_to_accuracy import (
    TimeToAccuracyOverSeeds,
    time_to_accuracy_over_seeds,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from bench.store import RunRecord, StudyRecord

    Compared = Sequence[tuple["VariantSummary", Difference]]
    BySeed = dict[int, float]

GUESSING = 1.5  # times chance: at or below, a network has hardly learned anything
MOST_NAMED = 10  # variants in one sentence; the table has all
NOT_PRIMARY = "the study's primary comparison is not significant"
MISSING = "results are missing, and with chance accuracy in their place it is not significant"
_CONTRAST_DOUBTS = {
    "pending": "{} is not tested before all of its runs have ended",
    "missing": f"no claim is made about {{}}, because {MISSING}",
    "secondary": f"no claim is made about {{}}, because {NOT_PRIMARY}",
}
_A_FEW = 5  # comparisons with their figures in one sentence
_A_PARAGRAPH = 3  # sentences; more are easier to read as a list
_ENDED = {"complete", "diverged", "out_of_memory", "failed"}
_TEST_IMAGES = 1000  # assumed of runs that did not record their number: the smallest shipped set


@dataclass(frozen=True)
class Failures:
    """How many runs of a variant did not learn: diverged, or no better than chance at the end.

    Attributes:
        failed: their number.
        runs: number of runs that trained to the end or diverged.
        p_value: of Fisher's exact test against the reference's; None without a reference, and
            where seeds are there that were not declared.
        median: of the accuracies, failed runs at chance accuracy.
        worst: the lowest of them.
    """

    failed: int
    runs: int
    p_value: float | None
    median: float
    worst: float


@dataclass(frozen=True)
class VariantSummary:
    """One row of a study's table.

    Attributes:
        name: the variant.
        reference: the variant it is compared with; None for a reference.
        parameters: number of parameters of one network.
        macs: multiply-adds of one image.
        test_accuracy: over seeds, 0…1; a run that diverged counts as chance.
        difference: of the test accuracy from the reference's.
        train_accuracy: over seeds, in evaluation mode, 0…1.
        images_per_second: of training, median over seeds.
        statuses: status → number of runs, for those that are not complete.
        train_difference: of the training accuracy from the reference's, if the study compares
            them (`compare_training`).
        time_to_accuracy: training time to the study's `target_accuracy`, if it has one.
        timing_only: the images are synthetic, so there is no accuracy.
        chance: accuracy of guessing, where no run does better than `GUESSING` times that;
            None for a variant that learned.
        failures: how many runs did not learn; None if all did.
        margin: largest difference that counts as equivalent, 0…1; None without one.
    """

    name: str
    reference: str | None
    parameters: int | None
    macs: int | None
    test_accuracy: Estimate | None
    difference: Difference | None
    train_accuracy: Estimate | None
    images_per_second: float | None
    statuses: dict[str, int]
    train_difference: Difference | None = None
    time_to_accuracy: TimeToAccuracyOverSeeds | None = None
    timing_only: bool = False
    chance: float | None = None
    failures: Failures | None = None
    margin: float | None = None


@dataclass(frozen=True)
class ContrastSummary:
    """A weighted sum of variants that the study declares.

    Attributes:
        name: its name.
        weights: variant → weight.
        difference: the sum of test accuracies; None where no seed is common.
        train_difference: of training accuracies, if the study compares them.
        margin: largest value that counts as none, 0…1; None without one.
        absence: why there is no value, if there is none.
    """

    name: str
    weights: dict[str, float]
    difference: Difference | None
    train_difference: Difference | None = None
    margin: float | None = None
    absence: str = ""

    @property
    def formula(self) -> str:
        """The sum in words, such as `a - 0.5 b - 0.5 c`."""
        return formula(self.weights)


def formula(weights: Mapping[str, float]) -> str:
    """Return a weighted sum in words, such as `a - 0.5 b - 0.5 c`."""
    terms: list[str] = []
    for name, weight in weights.items():
        factor = "" if abs(weight) == 1 else f"{abs(weight):g} "
        sign = ("- " if terms else "-") if weight < 0 else ("+ " if terms else "")
        terms.append(f"{sign}{factor}{name}")
    return " ".join(terms)


@dataclass(frozen=True)
class _Outcomes:
    """A study's accuracies by variant and seed, and what they are tested with."""

    study: StudyRecord
    records: Mapping[str, RunRecord]

    @cached_property
    def runs(self) -> dict[str, dict[int, RunRecord]]:
        """Variant → seed → record, of the runs that have one."""
        return {
            name: {int(s): self.records[r] for s, r in entry["runs"].items() if r in self.records}
            for name, entry in self.study.variants.items()
        }

    @cached_property
    def chance(self) -> dict[str, float]:
        """Variant → accuracy of guessing, by its own number of classes or another variant's."""
        known = {
            name: 1 / len(found)
            for name, runs in self.runs.items()
            for record in runs.values()
            if (found := record.result.get("classes"))
        }
        default = min(known.values(), default=None)
        return {
            name: chance
            for name in self.study.variants
            if (chance := known.get(name, default)) is not None
        }

    def values(self, figure: str) -> dict[str, BySeed]:
        """Return variant → seed → accuracy; a run that diverged has chance accuracy."""
        return {
            name: {
                seed: value
                for seed, record in runs.items()
                if (value := _accuracy(record, figure, self.chance.get(name))) is not None
            }
            for name, runs in self.runs.items()
        }

    @cached_property
    def family(self) -> dict[str, dict[str, float]]:
        """Every comparison and contrast → variant → weight."""
        return {
            **{
                name: {name: 1.0, entry["reference"]: -1.0}
                for name, entry in self.study.variants.items()
                if entry["reference"] in self.study.variants
            },
            **self.study.contrasts,
        }

    @cached_property
    def differences(self) -> dict[str, dict[str, Difference | None]]:
        """Test everything that the study compares: figure → comparison → difference.

        The comparisons and contrasts of test accuracies, and of training accuracies if the study
        compares them, are one family. A primary comparison is tested alone. The others are a
        family of their own, of which nothing is claimed unless the primary comparison is
        significant (gatekeeping), so that all claims together are wrong no more often than
        without one. With a margin, the primary comparison can be called equivalent by mistake as
        well, in at most half of the level's share of studies, so the others have the other half.
        """
        figures = ["test_accuracy", *(["train_accuracy"] if self.study.compare_training else [])]
        primary = self.study.primary
        first = (f"{primary['accuracy']}_accuracy", primary["name"]) if primary else None
        families = {
            figure: {n: w for n, w in self.family.items() if (figure, n) != first}
            for figure in figures
        }
        members = sum(map(len, families.values()))
        if first is not None and self.study.margin is not None:
            members *= 2
        found = {figure: self._tested(figure, f, members) for figure, f in families.items()}
        if first is None:
            return found
        figure, name = first
        decisive = self._tested(figure, {name: self.family[name]}, 1)
        decisive = {n: d and replace(d, alone=members > 0) for n, d in decisive.items()}
        if (tested := decisive[name]) is None or not tested.significant:
            found = {
                figure: {n: d and replace(d, doubt=d.doubt or "secondary") for n, d in of.items()}
                for figure, of in found.items()
            }
        return {**found, figure: {**found.get(figure, {}), **decisive}}

    def _tested(
        self, figure: str, family: Mapping[str, Mapping[str, float]], members: int
    ) -> dict[str, Difference | None]:
        """Test one figure's part of a family; what has runs that have not ended is marked."""
        declared = self.study.declared_seeds
        values = {
            name: {s: v for s, v in by_seed.items() if not declared or s in declared}
            for name, by_seed in self.values(figure).items()
        }
        found = compare(
            values,
            family,
            alpha=level(self.study),
            later_alpha=later_level(self.study),
            members=members,
            test=self.study.test,
            chance=self.chance,
        )
        return {
            name: replace(d, doubt="pending") if d and self._pending(family[name]) else d
            for name, d in found.items()
        }

    def _pending(self, weights: Mapping[str, float]) -> bool:
        """Return whether a run that belongs to a comparison has not ended."""
        for variant in weights:
            planned = self.study.declared_seeds or map(int, self.study.variants[variant]["runs"])
            ended = {s for s, r in self.runs[variant].items() if r.status in _ENDED}
            if any(seed not in ended for seed in planned):
                return True
        return False

    def absence(self, weights: Mapping[str, float]) -> str:
        """Say why a contrast has no value, if it has none."""
        values = self.values("test_accuracy")
        if all(v in values for v in weights) and self._pending(weights):
            return "is not tested before all of its runs have ended"
        without = [variant for variant in weights if not values.get(variant)]
        why = f"{without[0]} has no result" if without else "its variants share no tested seed"
        return f"cannot be computed, because {why}"

    def failures(self, name: str, reference: str | None) -> Failures | None:
        """Count the runs of a variant that did not learn; None if all did."""
        failed, runs = self._failed(name)
        if not failed:
            return None
        p_value = None
        declared = self.study.declared_seeds
        added = declared and {*self.runs[name], *self.runs.get(reference or "", ())} - {*declared}
        if reference in self.runs and not added:
            other_failed, other_runs = self._failed(reference)
            p_value = failure_p_value(failed, runs, other_failed, other_runs)
        values = list(self.values("test_accuracy")[name].values()) or [math.nan]
        return Failures(failed, runs, p_value, statistics.median(values), min(values))

    def _failed(self, name: str) -> tuple[int, int]:
        """Count the runs that diverged or ended at chance accuracy, and those that ended at all."""
        accuracy, chance = self.values("test_accuracy")[name], self.chance.get(name)
        runs = {s: r for s, r in self.runs[name].items() if s in accuracy or r.status == "diverged"}
        failed = 0
        for seed, record in runs.items():
            if record.status == "diverged":
                failed += 1
            elif chance:
                images = record.result.get("test_images", _TEST_IMAGES)
                low, high = chance_interval(round(1 / chance), images)
                failed += low <= accuracy[seed] <= high
        return failed, len(runs)


def summarise(
    study: StudyRecord, records: Mapping[str, RunRecord], epochs: pd.DataFrame | None = None
) -> list[VariantSummary]:
    """Summarise every variant of a study over its seeds.

    Args:
        study: the study.
        records: run → its record, finished or not; a run without one counts as not there.
        epochs: the study's `epochs` table; needed for a study with a `target_accuracy`.
    """
    outcomes = _Outcomes(study, records)
    accuracy, trained = outcomes.values("test_accuracy"), outcomes.values("train_accuracy")
    differences = outcomes.differences["test_accuracy"]
    train_differences = outcomes.differences.get("train_accuracy", {})
    summaries = []
    for name, entry in study.variants.items():
        runs = outcomes.runs[name].values()
        complete = [r for r in runs if r.status == "complete"]
        statuses = Counter(r.status for r in runs if r.status != "complete")
        speeds = [v for r in complete if (v := _number(r, "images_per_second")) is not None]
        time = None
        if study.target_accuracy is not None and epochs is not None and complete:
            ids = [record.run for record in complete]
            time = time_to_accuracy_over_seeds(epochs, ids, study.target_accuracy)
        summaries.append(
            VariantSummary(
                name=name,
                reference=entry["reference"],
                parameters=complete[0].result.get("parameters") if complete else None,
                macs=complete[0].result.get("macs") if complete else None,
                test_accuracy=estimate(list(accuracy[name].values())),
                difference=differences.get(name),
                train_accuracy=estimate(list(trained[name].values())),
                images_per_second=statistics.median(speeds) if speeds else None,
                statuses=dict(statuses.most_common()),
                train_difference=train_differences.get(name),
                time_to_accuracy=time,
                timing_only=any(r.result.get("timing_only") for r in complete),
                chance=_chance(complete, accuracy[name]),
                failures=outcomes.failures(name, entry["reference"]),
                margin=_fraction(study.margin),
            )
        )
    return summaries


def summarise_contrasts(
    study: StudyRecord, records: Mapping[str, RunRecord]
) -> list[ContrastSummary]:
    """Summarise the contrasts that a study declares; they are tested with its comparisons."""
    if not study.contrasts:
        return []
    outcomes = _Outcomes(study, records)
    tested = outcomes.differences["test_accuracy"]
    trained = outcomes.differences.get("train_accuracy", {})
    margin = _fraction(study.margin)
    return [
        ContrastSummary(
            name, weights, tested[name], trained.get(name), margin, outcomes.absence(weights)
        )
        for name, weights in study.contrasts.items()
    ]


def _fraction(points: float | None) -> float | None:
    return None if points is None else points / 100


def _accuracy(record: RunRecord, figure: str, chance: float | None) -> float | None:
    """Return an accuracy of a run; None if it has none. Synthetic images have no accuracy."""
    if record.status == "diverged":
        return chance
    if record.status != "complete" or record.result.get("timing_only"):
        return None
    return _number(record, figure)


def _number(record: RunRecord, figure: str) -> float | None:
    """Return a figure of a run; None if it was not recorded, or is not a number."""
    value = record.result.get(figure)
    return None if value is None or math.isnan(value) else float(value)


def _chance(complete: Sequence[RunRecord], accuracy: BySeed) -> float | None:
    """Return the accuracy of guessing, if no seed's is clearly above it."""
    if not accuracy or not complete:
        return None
    classes = len(complete[0].result.get("classes", ()))
    return 1 / classes if classes and max(accuracy.values()) <= GUESSING / classes else None


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


def first_named(texts: list[str], more: str, most: int = MOST_NAMED) -> list[str]:
    """Return texts about single variants, of too many the first ones and the number of others."""
    left = len(texts) - most
    return texts if left <= 1 else [*texts[:most], f"{left} {more}"]


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


def interval_name(*, alone: bool) -> str:
    """Name an interval: all hold together but that of a primary comparison."""
    return f"95 % interval{' of this comparison alone' if alone else ''}"


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
