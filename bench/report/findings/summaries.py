"""A study's summaries: a row per variant, and one per contrast, from the recorded runs."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from bench.report.findings.looks import later_level, level
from bench.report.findings.statistics import (
    Difference,
    Estimate,
    chance_interval,
    compare,
    estimate,
    failure_p_value,
)
from bench.report.findings.time_to_accuracy import (
    TimeToAccuracyOverSeeds,
    time_to_accuracy_over_seeds,
)
from bench.report.findings.wording import formula

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from bench.store import RunRecord, StudyRecord

    BySeed = dict[int, float]

GUESSING = 1.5  # times chance: at or below, a network has hardly learned anything
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
