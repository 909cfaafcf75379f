"""A study's table and the sentence that answers its question, from the numbers alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bench.report.findings.statistics import (
    POWER,
    Difference,
    Estimate,
    estimate,
    holm,
    paired_difference,
    seeds_needed,
)
from bench.report.findings.time_to_accuracy import TimeOverSeeds, time_over_seeds
from bench.store.tables.frames import study_runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from bench.store import Store, StudyRecord

    Compared = Sequence[tuple["VariantSummary", Difference]]

GUESSING = 1.5  # times chance: what hardly counts as having learned
_ONE_BY_ONE = 2  # undecided comparisons that have a sentence each
_A_PARAGRAPH = 3  # statements; more are easier to read as a list


@dataclass(frozen=True)
class VariantSummary:
    """One row of a study's table.

    Attributes:
        name: the variant.
        reference: what it is compared with; None for a reference.
        parameters: of one network.
        macs: multiply-adds of one image.
        test_accuracy: over seeds, 0…1.
        difference: of the test accuracy from the reference's, paired by seed.
        train_accuracy: over seeds, in evaluation mode, 0…1.
        train_difference: of the training accuracy from the reference's, paired by seed, if the
            study compares them (`compare_training`).
        images_per_second: of training, median over seeds.
        statuses: status → number of runs, for those that are not complete.
        seeds_needed: how many seeds would tell the observed difference apart with 80 % power;
            None where it is told apart already, or there is nothing to reckon from.
        time_to_target: training time to the study's `target_accuracy`, if it has one.
        timing_only: its images are made up, so that it has no accuracy.
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
    time_to_target: TimeOverSeeds | None = None
    timing_only: bool = False
    chance: float | None = None


def summarise(store: Store, study: StudyRecord) -> list[VariantSummary]:
    """Summarise every variant of a study over its seeds."""
    frame = study_runs(store, study.name)
    by_variant = {name: frame[frame["variant"] == name] for name in study.variants}
    accuracy = {name: _by_seed(rows, "test_accuracy") for name, rows in by_variant.items()}
    differences = _differences(study, accuracy)
    comparisons = sum(d is not None and d.p_value is not None for d in differences.values())
    summaries = [
        _summary(name, entry["reference"], by_variant[name], differences.get(name), comparisons)
        for name, entry in study.variants.items()
    ]
    summaries = [
        replace(s, timing_only=_timing_only(store, by_variant[s.name]))
        if s.test_accuracy is None and s.parameters is not None
        else s
        for s in summaries
    ]
    summaries = [
        replace(s, chance=_chance(store, by_variant[s.name], accuracy[s.name])) for s in summaries
    ]
    if study.compare_training:
        trained = {name: _by_seed(rows, "train_accuracy") for name, rows in by_variant.items()}
        differences = _differences(study, trained)
        summaries = [replace(s, train_difference=differences.get(s.name)) for s in summaries]
    if study.target_accuracy is None:
        return summaries
    epochs = study_runs(store, study.name, "epochs")
    return [
        replace(s, time_to_target=_time(by_variant[s.name], epochs, study.target_accuracy))
        for s in summaries
    ]


def _differences(
    study: StudyRecord, values: dict[str, dict[int, float]]
) -> dict[str, Difference | None]:
    """Compare every variant's values by seed with its reference's; p-values corrected as one."""
    return holm(
        {
            name: paired_difference(values[name], values[entry["reference"]])
            for name, entry in study.variants.items()
            if entry["reference"] in values
        }
    )


def _chance(store: Store, rows: pd.DataFrame, accuracy: dict[int, float]) -> float | None:
    """Return the accuracy of guessing, if no seed's is clearly above it."""
    if not accuracy or max(accuracy.values()) > GUESSING / 2:  # two classes are the fewest
        return None
    record = store.read_run(str(rows.loc[rows["status"] == "complete", "run"].iloc[0]))
    classes = len(record.result.get("classes", ())) if record else 0
    return 1 / classes if classes and max(accuracy.values()) <= GUESSING / classes else None


def _timing_only(store: Store, rows: pd.DataFrame) -> bool:
    """Whether images were made up; not so where training left no number for an accuracy."""
    complete = rows.loc[rows["status"] == "complete", "run"]
    records = [store.read_run(run) for run in complete]
    return any(record is not None and record.result.get("timing_only") for record in records)


def _time(rows: pd.DataFrame, epochs: pd.DataFrame, target: float) -> TimeOverSeeds | None:
    complete = rows.loc[rows["status"] == "complete", "run"]
    return time_over_seeds(epochs, complete, target) if len(complete) else None


def _summary(
    name: str,
    reference: str | None,
    rows: pd.DataFrame,
    difference: Difference | None,
    comparisons: int,
) -> VariantSummary:
    complete = rows[rows["status"] == "complete"]
    others = rows.loc[rows["status"] != "complete", "status"].astype(str)
    unclear = difference is not None and not difference.told_apart
    return VariantSummary(
        name=name,
        reference=reference,
        parameters=int(complete["parameters"].iloc[0]) if len(complete) else None,
        macs=int(complete["macs"].iloc[0]) if len(complete) else None,
        test_accuracy=estimate(list(_by_seed(rows, "test_accuracy").values())),
        difference=difference,
        train_accuracy=estimate(list(_by_seed(rows, "train_accuracy").values())),
        images_per_second=_median(complete["images_per_second"]),
        statuses={str(k): int(v) for k, v in others.value_counts().items()},
        seeds_needed=(
            seeds_needed(difference.effect_size, comparisons=comparisons)
            if unclear and difference is not None
            else None
        ),
    )


def _median(values: pd.Series[float]) -> float | None:
    known = values.dropna()
    return float(known.median()) if len(known) else None


def _by_seed(rows: pd.DataFrame, column: str) -> dict[int, float]:
    kept = rows[(rows["status"] == "complete") & rows[column].notna()]
    return {int(s): float(v) for s, v in zip(kept["seed"], kept[column], strict=True)}


def answer(summaries: list[VariantSummary]) -> str:
    """Answer the study's question in one sentence made from the numbers.

    A variant is called better or worse only when its paired interval excludes zero and
    its Holm-corrected p-value is below 0.05; otherwise the sentence says that no
    difference can be told apart. Where the study compares training accuracies, a sentence of
    the same kind about them follows.
    """
    texts = ["; ".join(clauses) for clauses in _clauses(summaries) if clauses]
    return " ".join(_sentence(text, summaries) for text in texts)


def statements(summaries: list[VariantSummary]) -> list[str]:
    """Return `answer` and `outlook` for a page: one paragraph, or a list if that would be long."""
    told = [_sentence(clause, summaries) for clauses in _clauses(summaries) for clause in clauses]
    more = outlook(summaries)
    if len(told) + len(more) > _A_PARAGRAPH:
        return [*told, *more]
    return [" ".join([answer(summaries), *more])]


def _clauses(summaries: list[VariantSummary]) -> list[list[str]]:
    """What the numbers say about test accuracies, and then about training accuracies."""
    compared = [(s, s.difference) for s in summaries if s.reference and s.difference]
    clauses = _told(compared, "test")
    clauses += [
        _absence(summary)
        for summary in summaries
        if summary.difference is None and (summary.reference or summary.test_accuracy is None)
    ]
    clauses += [
        f"{s.name} stands on {_seeds([s.test_accuracy.seeds])} only ({_statuses(s)})"
        for s in summaries
        if s.statuses and s.test_accuracy is not None
    ]
    told = [*clauses, *_undecided(compared)]
    doubts = [
        f"{s.name} is hardly better than guessing ({s.chance:.0%}), so it is in doubt whether it "
        "trained at all"
        for s in summaries
        if s.chance is not None
    ]
    trained = [(s, s.train_difference) for s in summaries if s.reference and s.train_difference]
    return [
        [*(told or ["there is nothing to compare yet"]), *doubts],
        [*_told(trained, "training"), *_undecided(trained, " in training accuracy")],
    ]


def _sentence(text: str, summaries: list[VariantSummary]) -> str:
    names = [s.name for s in summaries]  # a name stays as it is written
    first = text.split(maxsplit=1)[0].rstrip(",;")
    return f"{text if first in names else text[0].upper() + text[1:]}."


def outlook(summaries: list[VariantSummary]) -> list[str]:
    """Say, for every comparison left undecided, how many seeds would be needed to decide it.

    The number rests on the observed difference, which is uncertain itself: it is an order of
    magnitude. Nothing is said where there is none to reckon from (one seed, no spread).
    """
    told = []
    for summary in summaries:
        difference = summary.difference
        if difference is None or difference.told_apart or not difference.effect_size:
            continue
        needed = summary.seeds_needed
        count = f"about {needed} seeds" if needed else "more than a thousand seeds"
        pair = f"{summary.name} from {summary.reference}"
        told.append((pair, f"{difference.mean * 100:+.2f} points", count))
    if len(told) > _ONE_BY_ONE:
        seen = ", ".join(f"{pair} {count} ({points})" for pair, points, count in told)
        return [
            f"To tell them apart with {POWER:.0%} power, were the differences those seen: {seen}."
        ]
    return [
        f"To tell {pair} apart, were the true difference the {points} seen: {count} "
        f"({POWER:.0%} power)."
        for pair, points, count in told
    ]


def _told(compared: Compared, which: str) -> list[str]:
    """Say of every difference that can be told apart how large it is."""
    return [
        f"{summary.name} is {abs(d.mean) * 100:.1f} points of {which} accuracy "
        f"{'better' if d.mean > 0 else 'worse'} than {summary.reference} "
        f"(95 % interval {_interval(d)}, {d.seeds} seeds)"
        for summary, d in compared
        if d.told_apart
    ]


def _interval(difference: Difference) -> str:
    """Return the ends of an interval that zero lies outside of, without their sign."""
    assert difference.low is not None and difference.high is not None  # noqa: S101, PT018 - told apart
    low, high = sorted((abs(difference.low), abs(difference.high)))
    return f"{low * 100:.1f} to {high * 100:.1f}"


def _undecided(compared: Compared, what: str = "") -> list[str]:
    unclear = [(s, d) for s, d in compared if not d.told_apart]
    if not unclear:
        return []
    pairs = [f"{s.name} and {s.reference}" for s, _ in unclear]
    between = ", ".join(pairs[:-1]) + (" or " if len(pairs) > 1 else "") + pairs[-1]
    count = _seeds([d.seeds for _, d in unclear])
    return [f"no difference{what} between {between} can be told apart with {count}"]


def _seeds(counts: list[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low} to {high} seeds" if low < high else f"{low} seed" + ("s" if low != 1 else "")


def _statuses(summary: VariantSummary) -> str:
    return ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in summary.statuses.items())


def _absence(summary: VariantSummary) -> str:
    if summary.test_accuracy is None and summary.statuses:
        return f"{summary.name} has no result to compare ({_statuses(summary)})"
    if summary.timing_only:
        return f"{summary.name} has no accuracy (its images are made up, for timing only)"
    if summary.test_accuracy is None and summary.parameters is not None:
        return f"{summary.name} has no accuracy (what its runs recorded is no number)"
    if summary.test_accuracy is not None:
        return f"{summary.name} cannot be compared ({summary.reference} shares no finished seed)"
    return f"{summary.name} has no result yet"
