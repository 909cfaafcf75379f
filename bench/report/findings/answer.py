"""A study's summaries and the sentences that answer its question, from the numbers alone."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.report.findings.statistics import (
    POWER,
    Difference,
    Estimate,
    counted,
    estimate,
    holm,
    paired_difference,
    seeds_needed,
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
_A_PARAGRAPH = 3  # sentences; more are easier to read as a list


@dataclass(frozen=True)
class VariantSummary:
    """One row of a study's table.

    Attributes:
        name: the variant.
        reference: the variant it is compared with; None for a reference.
        parameters: number of parameters of one network.
        macs: multiply-adds of one image.
        test_accuracy: over seeds, 0…1.
        difference: of the test accuracy from the reference's, paired by seed.
        train_accuracy: over seeds, in evaluation mode, 0…1.
        images_per_second: of training, median over seeds.
        statuses: status → number of runs, for those that are not complete.
        seeds_needed: number of seeds with which the observed difference would be significant with
            80 % power; None where it is significant already, or there is no effect size.
        train_difference: of the training accuracy from the reference's, paired by seed, if the
            study compares them (`compare_training`).
        time_to_accuracy: training time to the study's `target_accuracy`, if it has one.
        timing_only: the images are synthetic, so there is no accuracy.
        chance: accuracy of guessing, where no run does better than `GUESSING` times that;
            None for a variant that learned.
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
    seeds_needed: int | None = None
    train_difference: Difference | None = None
    time_to_accuracy: TimeToAccuracyOverSeeds | None = None
    timing_only: bool = False
    chance: float | None = None


def summarise(
    study: StudyRecord, records: Mapping[str, RunRecord], epochs: pd.DataFrame | None = None
) -> list[VariantSummary]:
    """Summarise every variant of a study over its seeds.

    Args:
        study: the study.
        records: run → its record, finished or not; a run without one counts as not there.
        epochs: the study's `epochs` table; needed for a study with a `target_accuracy`.
    """
    by_variant = {
        name: {int(s): records[run] for s, run in entry["runs"].items() if run in records}
        for name, entry in study.variants.items()
    }
    accuracy = {name: _by_seed(runs, "test_accuracy") for name, runs in by_variant.items()}
    trained = {name: _by_seed(runs, "train_accuracy") for name, runs in by_variant.items()}
    differences = _differences(study, accuracy)
    train_differences = _differences(study, trained) if study.compare_training else {}
    comparisons = sum(d is not None and d.p_value is not None for d in differences.values())
    summaries = []
    for name, entry in study.variants.items():
        complete = [r for r in by_variant[name].values() if r.status == "complete"]
        statuses = Counter(r.status for r in by_variant[name].values() if r.status != "complete")
        difference = differences.get(name)
        speeds = [v for r in complete if (v := _number(r, "images_per_second")) is not None]
        time = needed = None
        if study.target_accuracy is not None and epochs is not None and complete:
            runs = [record.run for record in complete]
            time = time_to_accuracy_over_seeds(epochs, runs, study.target_accuracy)
        if difference is not None and not difference.significant:
            needed = seeds_needed(difference.effect_size, comparisons=comparisons)
        summaries.append(
            VariantSummary(
                name=name,
                reference=entry["reference"],
                parameters=complete[0].result.get("parameters") if complete else None,
                macs=complete[0].result.get("macs") if complete else None,
                test_accuracy=estimate(list(accuracy[name].values())),
                difference=difference,
                train_accuracy=estimate(list(trained[name].values())),
                images_per_second=statistics.median(speeds) if speeds else None,
                statuses=dict(statuses.most_common()),
                seeds_needed=needed,
                train_difference=train_differences.get(name),
                time_to_accuracy=time,
                timing_only=any(r.result.get("timing_only") for r in complete),
                chance=_chance(complete, accuracy[name]),
            )
        )
    return summaries


def _by_seed(runs: Mapping[int, RunRecord], figure: str) -> BySeed:
    """Return one figure of every complete run that has it; synthetic images have no accuracy."""
    return {
        seed: value
        for seed, record in runs.items()
        if record.status == "complete"
        and not record.result.get("timing_only")
        and (value := _number(record, figure)) is not None
    }


def _number(record: RunRecord, figure: str) -> float | None:
    """Return a figure of a run; None if it was not recorded, or is not a number."""
    value = record.result.get(figure)
    return None if value is None or math.isnan(value) else float(value)


def _differences(study: StudyRecord, values: Mapping[str, BySeed]) -> dict[str, Difference | None]:
    """Compare every variant's values with its reference's; p-values are corrected together."""
    return holm(
        {
            name: paired_difference(values[name], values[entry["reference"]])
            for name, entry in study.variants.items()
            if entry["reference"] in values
        }
    )


def _chance(complete: Sequence[RunRecord], accuracy: BySeed) -> float | None:
    """Return the accuracy of guessing, if no seed's is clearly above it."""
    if not accuracy:
        return None
    classes = len(complete[0].result.get("classes", ()))
    return 1 / classes if classes and max(accuracy.values()) <= GUESSING / classes else None


def answer(summaries: list[VariantSummary]) -> str:
    """Answer the study's question in one sentence made from the numbers.

    A variant is called significantly better or worse only if its difference is
    `Difference.significant`; otherwise the sentence says that there is no significant
    difference. Where the study compares training accuracies, a sentence about them follows.
    """
    texts = ["; ".join(clauses) for clauses in _clauses(summaries) if clauses]
    return " ".join(_sentence(text, summaries) for text in texts)


def statements(summaries: list[VariantSummary]) -> list[str]:
    """Return `answer` and `outlook` for a page: one paragraph, or a list if that would be long."""
    single = [_sentence(clause, summaries) for part in _clauses(summaries) for clause in part]
    more = outlook(summaries)
    if len(single) + len(more) > _A_PARAGRAPH:
        return [*single, *more]
    return [" ".join([answer(summaries), *more])]


def _clauses(summaries: list[VariantSummary]) -> list[list[str]]:
    """Return what the numbers say about test accuracies, and then about training accuracies."""
    compared = [(s, s.difference) for s in summaries if s.reference and s.difference]
    tested = [
        *_significant(compared, "test"),
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
                if s.statuses and s.test_accuracy is not None
            ],
            "more have unfinished runs",
        ),
        *_not_significant(compared),
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
            *first_named(doubts, "more are hardly better than guessing"),
        ],
        [
            *_significant(trained, "training"),
            *_not_significant(trained, " in training accuracy"),
        ],
    ]


def _sentence(text: str, summaries: list[VariantSummary]) -> str:
    named = any(text.startswith(s.name) for s in summaries)  # a name keeps its small first letter
    return f"{text if named else text[0].upper() + text[1:]}."


def first_named(texts: list[str], more: str) -> list[str]:
    """Return texts about single variants, of too many the first ones and the number of others."""
    left = len(texts) - MOST_NAMED
    return texts if left <= 1 else [*texts[:MOST_NAMED], f"{left} {more}"]


def outlook(summaries: list[VariantSummary]) -> list[str]:
    """Say how many seeds each difference that is not significant would need.

    The number assumes that the observed difference is the true one, so it is an order of
    magnitude. Nothing is said where there is no effect size (one seed, no spread).
    """
    needed = [
        f"{s.name} and {s.reference} "
        f"{f'about {s.seeds_needed}' if s.seeds_needed else 'more than a thousand'} "
        f"({d.mean * 100:+.2f} points)"
        for s in summaries
        if (d := s.difference) and not d.significant and d.effect_size
    ]
    words = (
        f"Seeds needed for a significant difference with {POWER * 100:.0f} % power, if the true "
        f"difference is the observed one: {', '.join(first_named(needed, 'more'))}."
    )
    return [words] if needed else []


def _significant(compared: Compared, which: str) -> list[str]:
    """Say of every significant difference how large it is."""
    differing = [(s, d) for s, d in compared if d.significant]
    if len(differing) > MOST_NAMED:
        differing.sort(key=lambda pair: -abs(pair[1].mean))
    return first_named(
        [
            f"{summary.name} is significantly {'better' if d.mean > 0 else 'worse'} than "
            f"{summary.reference}, by {abs(d.mean) * 100:.1f} points of {which} accuracy "
            f"(95 % interval {_interval(d)}, n = {d.seeds})"
            for summary, d in differing
        ],
        "more differ significantly, by less",
    )


def _interval(difference: Difference) -> str:
    """Return the ends of an interval that excludes zero, without their sign."""
    assert difference.low is not None and difference.high is not None  # noqa: S101, PT018 - significant
    low, high = sorted((abs(difference.low), abs(difference.high)))
    return f"{low * 100:.1f} to {high * 100:.1f}"


def _not_significant(compared: Compared, what: str = "") -> list[str]:
    unclear = [(s, d) for s, d in compared if not d.significant]
    if not unclear:
        return []
    pairs = [f"{s.name} and {s.reference}" for s, _ in unclear]
    between = ", ".join(pairs[:-1]) + (" or " if len(pairs) > 1 else "") + pairs[-1]
    if len(pairs) > MOST_NAMED:
        of = "all" if len(pairs) == len(compared) else f"{len(pairs)} of"
        between = f"{of} {len(compared)} variants and their references"
    counts = [d.seeds for _, d in unclear]
    low, high = min(counts), max(counts)
    seeds = f"{low} to {high}" if low < high else f"{low}"
    return [f"there is no significant difference{what} between {between} (n = {seeds})"]


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
        return f"{summary.name} cannot be compared ({summary.reference} shares no finished seed)"
    return f"{summary.name} has no result yet"
