"""A study's summaries: a row per variant, and one per contrast, from the recorded runs."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from bench.report.findings.looks import later_level, level
from bench.report.findings.statistics import (
    Difference,
    Estimate,
    compare,
    estimate,
    failure_p_value,
)
from bench.report.findings.time_to_accuracy import (
    TimeToAccuracyOverSeeds,
    time_to_accuracy_over_seeds,
)
from bench.report.findings.wording import UNTESTED, counted_statuses, formula
from bench.system.guessing import guessing_limit, learned

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd

    from bench.store import RunRecord, StudyRecord

    BySeed = dict[int, float]
    Weights = Mapping[str, float]  # variant → weight
    Key = tuple[str, str]  # `test` or `train`, and a variant or contrast

_ENDED = {"complete", "diverged", "out_of_memory", "failed"}
_TEST_IMAGES = 1000  # assumed of runs that did not record their number: the smallest shipped set


@dataclass(frozen=True)
class Failures:
    """How many runs of a variant did not learn: diverged, or ended no better than the best guess.

    Attributes:
        failed: their number.
        runs: number of runs that trained to the end or diverged.
        p_value: of Fisher's exact test against the reference's; None without a reference, before
            all runs have ended, and where seeds are there that were not declared.
        median: of the accuracies, diverged runs at chance accuracy.
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
        statuses: of the runs that are not complete.
        train_difference: of the training accuracy from the reference's, if the study compares
            them (`compare_training`).
        time_to_accuracy: training time to the study's `target_accuracy`, if it has one.
        timing_only: the images are synthetic, so there is no accuracy.
        guess: accuracy of guessing, where no run is above its `guessing_limit`;
            None for a variant that learned.
        failures: how many runs did not learn; None if all did, and all of its reference's.
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
    statuses: tuple[str, ...]
    train_difference: Difference | None = None
    time_to_accuracy: TimeToAccuracyOverSeeds | None = None
    timing_only: bool = False
    guess: float | None = None
    failures: Failures | None = None
    margin: float | None = None

    @property
    def incomplete(self) -> str:
        """How many runs are not complete, such as `2 failed, 1 out of memory`; empty if none."""
        return counted_statuses(self.statuses)


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


def family_of(study: StudyRecord) -> dict[str, dict[str, float]]:
    """Return every comparison and contrast of a study → variant → weight."""
    compared = {
        name: {name: 1.0, entry["reference"]: -1.0}
        for name, entry in study.variants.items()
        if entry["reference"] in study.variants
    }
    return {**compared, **study.contrasts}


@dataclass(frozen=True)
class Outcomes:
    """A study's accuracies by variant and seed, and what they are tested with.

    Attributes:
        study: the study.
        records: run → its record, finished or not; a run without one counts as not there.
    """

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
        return {**dict.fromkeys(self.runs, min(known.values())), **known} if known else {}

    @cached_property
    def accuracies(self) -> dict[str, dict[str, BySeed]]:
        """`test` or `train` → variant → seed → accuracy; a run that diverged has chance's."""
        return {
            split: {
                name: {
                    seed: value
                    for seed, record in runs.items()
                    if (value := _accuracy(record, split, self.chance.get(name))) is not None
                }
                for name, runs in self.runs.items()
            }
            for split in ("test", "train")
        }

    @property
    def margin(self) -> float | None:
        """The largest difference that counts as equivalent, 0…1; None without one."""
        return None if self.study.margin is None else self.study.margin / 100

    @cached_property
    def differences(self) -> dict[Key, Difference | None]:
        """Test everything that the study compares: (`test` or `train`, comparison) → difference.

        The comparisons and contrasts of test accuracies, and of training accuracies if the study
        compares them, are one family. A primary comparison is tested alone. The others are a
        family of their own, of which nothing is claimed unless the primary comparison is
        significant (gatekeeping), so that all claims together are wrong no more often than
        without one. With a margin, the primary comparison can be called equivalent by mistake as
        well, in at most half of the level's share of studies, so the others have the other half.
        """
        splits = ("test", "train") if self.study.compare_training else ("test",)
        tested = {(s, name): w for s in splits for name, w in family_of(self.study).items()}
        primary = self.study.primary
        first = (primary["accuracy"], primary["name"]) if primary else None
        others = sum(key != first for key in tested)
        members = 2 * others if primary and self.study.margin is not None else others
        found = {
            (split, name): self._tested(split, weights, 1 if (split, name) == first else members)
            for (split, name), weights in tested.items()
        }
        if first is None:
            return found
        decisive = found[first]
        if decisive is None or not decisive.significant:
            found = {k: d and replace(d, doubt=d.doubt or "secondary") for k, d in found.items()}
        return {**found, first: decisive and replace(decisive, alone=others > 0)}

    def _tested(self, split: str, weights: Weights, members: int) -> Difference | None:
        """Test one of so many comparisons; one with runs that have not ended is marked."""
        declared = self.study.declared_seeds
        values = {
            variant: {s: v for s, v in by_seed.items() if not declared or s in declared}
            for variant, by_seed in self.accuracies[split].items()
            if variant in weights
        }
        found = compare(
            values,
            weights,
            alpha=level(self.study),
            later_alpha=later_level(self.study),
            members=members,
            test=self.study.test,
            chance=self.chance,
            planned=set.intersection(*map(self._planned, weights)),
        )
        return found.withheld() if found is not None and self._pending(weights) else found

    def _planned(self, variant: str) -> set[int]:
        """Return the seeds of a variant that are tested."""
        declared = self.study.declared_seeds
        return set(declared or map(int, self.study.variants[variant]["runs"]))

    def _pending(self, variants: Iterable[str]) -> bool:
        """Return whether a run that belongs to a comparison has not ended."""
        for variant in variants:
            ended = {s for s, r in self.runs[variant].items() if r.status in _ENDED}
            if not ended.issuperset(self._planned(variant)):
                return True
        return False

    def absence(self, weights: Weights) -> str:
        """Say why a contrast has no value, if it has none."""
        if self._pending(weights):
            return UNTESTED
        without = [variant for variant in weights if not self.accuracies["test"][variant]]
        why = f"{without[0]} has no result" if without else "its variants share no tested seed"
        return f"cannot be computed, because {why}"

    def failures(self, name: str, reference: str | None) -> Failures | None:
        """Count the runs of a variant that did not learn.

        None if all did, unless its reference has others, with which they can be compared.
        """
        failed, runs = self._failed(name)
        p_value = None
        if reference in self.runs and not self._pending((name, reference)):
            declared = set(self.study.declared_seeds)
            there = self.runs[name].keys() | self.runs[reference].keys()
            if not declared or there <= declared:
                others, of_others = self._failed(reference)
                if failed or others:
                    p_value = failure_p_value(failed, runs, others, of_others)
        if not failed and p_value is None:
            return None
        values = self.accuracies["test"][name].values() or [math.nan]
        return Failures(failed, runs, p_value, statistics.median(values), min(values))

    def _failed(self, name: str) -> tuple[int, int]:
        """Count the runs that did not learn, and those that ended at all."""
        accuracy = self.accuracies["test"][name]
        runs = {s: r for s, r in self.runs[name].items() if s in accuracy or r.status == "diverged"}
        failed = 0
        for seed, record in runs.items():
            if record.status == "diverged":
                failed += 1
            elif guess := _guess(record):
                images = record.result.get("test_images", _TEST_IMAGES)
                failed += not learned(accuracy[seed], guess, images)
        return failed, len(runs)


def summarise(outcomes: Outcomes, epochs: pd.DataFrame | None = None) -> list[VariantSummary]:
    """Summarise every variant of a study over its seeds.

    Args:
        outcomes: what the study's runs gave.
        epochs: the study's `epochs` table; needed for a study with a `target_accuracy`.
    """
    study, summaries = outcomes.study, []
    for name, entry in study.variants.items():
        runs = outcomes.runs[name].values()
        accuracy, trained = (outcomes.accuracies[split][name] for split in ("test", "train"))
        complete = [r for r in runs if r.status == "complete"]
        first = complete[0].result if complete else {}
        speeds = [v for r in complete if (v := _number(r, "images_per_second")) is not None]
        time = None
        ended = [r.run for r in runs if r.status in {"complete", "diverged"}]
        if study.target_accuracy is not None and epochs is not None and ended:
            time = time_to_accuracy_over_seeds(epochs, ended, study.target_accuracy)
        summaries.append(
            VariantSummary(
                name=name,
                reference=entry["reference"],
                parameters=first.get("parameters"),
                macs=first.get("macs"),
                test_accuracy=estimate(list(accuracy.values())),
                difference=outcomes.differences.get(("test", name)),
                train_accuracy=estimate(list(trained.values())),
                images_per_second=statistics.median(speeds) if speeds else None,
                statuses=tuple(r.status for r in runs if r.status != "complete"),
                train_difference=outcomes.differences.get(("train", name)),
                time_to_accuracy=time,
                timing_only=any(r.result.get("timing_only") for r in complete),
                guess=_guess_of_all(complete, accuracy),
                failures=outcomes.failures(name, entry["reference"]),
                margin=outcomes.margin,
            )
        )
    return summaries


def summarise_contrasts(outcomes: Outcomes) -> list[ContrastSummary]:
    """Summarise the contrasts that a study declares; they are tested with its comparisons."""
    return [
        ContrastSummary(
            name,
            weights,
            difference=outcomes.differences["test", name],
            train_difference=outcomes.differences.get(("train", name)),
            margin=outcomes.margin,
            absence=outcomes.absence(weights),
        )
        for name, weights in outcomes.study.contrasts.items()
    ]


def _accuracy(record: RunRecord, split: str, chance: float | None) -> float | None:
    """Return an accuracy of a run; None if it has none. Synthetic images have no accuracy."""
    if record.status == "diverged":
        return chance
    if record.status != "complete" or record.result.get("timing_only"):
        return None
    return _number(record, f"{split}_accuracy")


def _number(record: RunRecord, figure: str) -> float | None:
    """Return a figure of a run; None if it was not recorded, or is not a number."""
    value = record.result.get(figure)
    return None if value is None or math.isnan(value) else float(value)


def _guess(record: RunRecord) -> float | None:
    """Return the accuracy of the best guess: of the largest class, or of equally large ones."""
    classes = len(record.result.get("classes", ()))
    equal = 1 / classes if classes else None
    return record.result.get("largest_class", equal)  # which older records do not have


def _guess_of_all(runs: Sequence[RunRecord], accuracy: BySeed) -> float | None:
    """Return the accuracy of the best guess, if no seed's is clearly above it."""
    guess = _guess(runs[0]) if runs else None
    if guess is None or not accuracy or max(accuracy.values()) > guessing_limit(guess):
        return None
    return guess
