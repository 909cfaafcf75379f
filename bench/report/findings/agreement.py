"""Trained networks compared on the same test images, seed by seed (McNemar's exact test)."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.report.findings.power import SIGNIFICANCE, t_bound
from bench.report.findings.summaries import family_of
from bench.report.findings.wording import (
    DOUBTS,
    MOST_NAMED,
    digits,
    first_named,
    formula,
    interval_name,
)
from bench.system.mcnemar import mcnemar_p_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from bench.report.findings.statistics import Difference
    from bench.store import RunRecord, StudyRecord


@dataclass(frozen=True)
class Discordance:
    """Two trained networks on the same test images (McNemar 1947).

    Attributes:
        images: number of images.
        only_first: images that only the first network classifies correctly.
        only_second: images that only the second network classifies correctly.
    """

    images: int
    only_first: int
    only_second: int

    @property
    def p_value(self) -> float:
        """Of the exact two-sided test, not corrected, that both numbers differ by chance only."""
        return mcnemar_p_value(self.only_first, self.only_second)

    @property
    def rate(self) -> float:
        """Share of the images that just one of the two classifies correctly, 0…1."""
        return (self.only_first + self.only_second) / self.images


@dataclass(frozen=True)
class SeedComparison:
    """A variant's network and its reference's, of one random seed.

    Attributes:
        variant: the first network's variant.
        reference: the second one's.
        seed: of both.
        found: how they differ.
    """

    variant: str
    reference: str
    seed: int
    found: Discordance


@dataclass(frozen=True)
class Agreement:
    """How a study's networks differ on the same test images.

    Attributes:
        comparisons: every variant against its reference, seed by seed.
        among_seeds: reference → share of the images that just one of two of its own networks
            classifies correctly, 0…1 (mean over each seed and the next one): what a random seed
            alone changes.
        notes: what is left out, and why.
        new_images: variant → its difference in accuracy from its reference, or contrast → its sum,
            with the 95 % interval for new seeds and new test images, simultaneous as that of the
            study's answer.
        not_given: variant or contrast → why it has no such interval.
        contrasts: contrast → its formula in words.
        primary: the comparison whose interval does not belong to those of the others.
    """

    comparisons: tuple[SeedComparison, ...]
    among_seeds: dict[str, float]
    notes: tuple[str, ...]
    new_images: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    not_given: dict[str, str] = field(default_factory=dict)
    contrasts: dict[str, str] = field(default_factory=dict)
    primary: str | None = None

    @cached_property
    def rates(self) -> dict[str, float]:
        """Variant → share of the images that just one of it and its reference has right, 0…1."""
        return {variant: _rate(found) for (variant, _), found in self._by_variant.items()}

    @cached_property
    def _by_variant(self) -> dict[tuple[str, str], list[Discordance]]:
        grouped = itertools.groupby(self.comparisons, lambda c: (c.variant, c.reference))
        return {pair: [c.found for c in group] for pair, group in grouped}

    @property
    def sentences(self) -> list[str]:
        """One sentence per variant: how often it and its reference disagree, and the difference.

        Sentences on contrasts follow.
        """
        groups = list(self._by_variant.items())
        if len(groups) > MOST_NAMED:
            groups.sort(key=lambda group: -_rate(group[1]))
        sentences = [self._sentence(*pair, found) for pair, found in groups]
        sentences = first_named(sentences, "more variants disagree as often or less.")
        said = {*(variant for variant, _ in self._by_variant), *self.contrasts}
        lacking = [
            f"{name} has no difference for new test images, because {why}."
            for name, why in self.not_given.items()
            if name not in said
        ]
        sentences += first_named(lacking, "more variants have none.")
        for name, words in self.contrasts.items():
            if interval := self._interval(name):
                sentences.append(
                    f"For new seeds and new test images, {name} ({words}) is {interval}."
                )
            elif why := self.not_given.get(name):
                sentences.append(f"{name} is not given for new test images, because {why}.")
        return sentences

    def _interval(self, name: str) -> str | None:
        if name not in self.new_images:
            return None
        mean, low, high = (digits(value * 100, "+z") for value in self.new_images[name])
        what = interval_name(alone=name == self.primary)
        return f"{mean} points ({what} {low} to {high})"

    def _sentence(self, variant: str, reference: str, found: Sequence[Discordance]) -> str:
        """Say at which rate two networks of one seed disagree, and two seeds of the reference."""
        text = (
            f"For {_rate(found) * 100:.1f} % of the test images, just one of {variant} and "
            f"{reference} is right ({_seeds(found)})"
        )
        if (own := self.among_seeds.get(reference)) is not None:
            text += f"; of two seeds of {reference}, for {own * 100:.1f} %"
        if interval := self._interval(variant):
            text += f"; for new seeds and new test images, the difference in accuracy is {interval}"
        elif why := self.not_given.get(variant):
            text += f"; no difference for new test images is given, because {why}"
        return f"{text}."


def _rate(found: Sequence[Discordance]) -> float:
    return sum(d.rate for d in found) / len(found)


def _seeds(found: Sequence[Discordance]) -> str:
    return f"mean of {len(found)} seeds" if len(found) > 1 else "one seed"


def agreement(
    study: StudyRecord,
    records: Mapping[str, RunRecord],
    predictions: Mapping[str, Mapping[str, npt.NDArray[Any]]],
    notes: Sequence[str],
    tested: Mapping[str, Difference | None],
) -> Agreement:
    """Compare a study's networks of the seeds that are tested on the same test images.

    Args:
        study: which run stands for which variant and seed.
        records: run → its record.
        predictions: run → its `predictions` and the `labels`, of the runs that have them.
        notes: why predictions of a run are missing.
        tested: variant → its difference from its reference, and contrast → its sum, as the study's
            answer has them.
    """
    right = {
        run: tensors["predictions"] == tensors["labels"] for run, tensors in predictions.items()
    }

    images = tested_images(records)

    def alike(runs: Sequence[str | None]) -> bool:
        """Return whether all of these runs have predictions of the same test images."""
        return all(run in right for run in runs) and len({images[r] for r in runs if r}) == 1

    def compare(first: str, second: str | None) -> Discordance | None:
        """Compare two runs; None if one has no predictions, or their test images differ."""
        if second is None or not alike([first, second]):
            return None
        return mcnemar(right[first], right[second])

    def among(runs: dict[str, str]) -> list[Discordance]:
        """Compare the networks of one variant, each with the next one."""
        return [d for pair in itertools.pairwise(runs.values()) if (d := compare(*pair))]

    declared = {str(seed) for seed in study.declared_seeds}
    runs = {
        name: {s: run for s, run in entry["runs"].items() if not declared or s in declared}
        for name, entry in study.variants.items()
    }
    rows = [
        SeedComparison(name, reference, int(seed), found)
        for name, entry in study.variants.items()
        if (reference := entry["reference"]) in runs
        for seed, run in runs[name].items()
        if (found := compare(run, runs[reference].get(seed)))
    ]
    new_images, not_given = {}, {}
    for name, weights in family_of(study).items():
        shared = set.intersection(*(set(runs[v]) for v in weights))
        seeds = [s for s in sorted(shared, key=int) if alike([runs[v][s] for v in weights])]
        difference = tested.get(name)
        if difference is None or not right:
            continue
        if difference.low is None and difference.doubt != "pending":
            continue
        planned = declared or set.union(*(set(runs[v]) for v in weights))
        if why := _not_given(difference, planned.difference(seeds)):
            not_given[name] = why
            continue
        factors = list(weights.values())
        by_seed = [np.dot(factors, [right[runs[v][s]] for v in weights]) for s in seeds]
        if interval := _for_new_images(by_seed, difference):
            new_images[name] = interval
    references = dict.fromkeys(row.reference for row in rows)
    own = {name: _rate(pairs) for name in references if (pairs := among(runs[name]))}
    return Agreement(
        tuple(rows),
        own,
        tuple(notes),
        new_images,
        not_given,
        {name: formula(weights) for name, weights in study.contrasts.items()},
        next((name for name, d in tested.items() if d and d.alone), None),
    )


def tested_images(records: Mapping[str, RunRecord]) -> dict[str, str | None]:
    """Return which test images each run was tested on: the same text for the same images.

    Runs before December 2026 have one fingerprint of their training and test images together.
    """
    results = {run: record.result for run, record in records.items()}
    together, alone = "dataset_fingerprint", "test_fingerprint"
    known = {r.get(together): r[alone] for r in results.values() if alone in r}
    return {run: known.get(r.get(together), r.get(together)) for run, r in results.items()}


def _for_new_images(
    by_seed: Sequence[npt.NDArray[Any]], difference: Difference
) -> tuple[float, float, float] | None:
    """Return the mean with its interval, which contains the difference's own; None without one."""
    if len({len(images) for images in by_seed}) > 1:
        return None
    interval = new_images_interval(np.stack(by_seed), difference.level)
    if interval is None or difference.low is None or difference.high is None:
        return None
    mean, low, high = interval
    low, high = min(low, difference.low), max(high, difference.high)  # no more certain than that
    return mean, max(low, -difference.limit), min(high, difference.limit)


def _not_given(difference: Difference, lacking: set[str]) -> str | None:
    """Return why no difference for new images may be given: the answer's reasons, and one more."""
    if difference.doubt is not None:
        return DOUBTS[difference.doubt]
    if not lacking:
        return None
    seeds = ", ".join(sorted(lacking, key=int))
    return f"seed{'s' if len(lacking) > 1 else ''} {seeds} cannot be compared on the same images"


def mcnemar(first: np.ndarray, second: np.ndarray) -> Discordance:
    """Compare two networks' predictions on the same images by McNemar's exact test.

    The test is about these two trained networks, not about the design choice: it does not
    include the variation between random seeds (Dietterich 1998).

    Args:
        first: whether the first network is right, one boolean per image.
        second: the same of the second network, in the same order.

    Raises:
        ValueError: they are of different length.
    """
    if first.shape != second.shape:
        raise ValueError(f"predictions of {len(first)} and {len(second)} images: not the same")
    return Discordance(len(first), int((first & ~second).sum()), int((second & ~first).sum()))


def new_images_interval(
    differences: np.ndarray, level: float = SIGNIFICANCE
) -> tuple[float, float, float] | None:
    """Return a mean difference with its interval for new seeds and new test images.

    Seeds and images are crossed: both are samples (Owen 2007). The variance of the mean is
    s²_seed/n + s²_image/N - s²_residual/(n·N), with Satterthwaite's (1946) degrees of freedom.

    Args:
        differences: seed × image; 1 where only the first network is right, -1 where only the
            second is, else 0. Of a contrast, the sum of the weights of the networks that are right.
        level: significance level of the interval (0.05: a 95 % interval).

    Returns:
        Mean, lower and upper end, in fractions; None if there is no variance.
    """
    seeds, images = differences.shape
    mean = float(differences.mean())
    by_seed, by_image = differences.mean(axis=1), differences.mean(axis=0)
    residual = differences - by_seed[:, None] - by_image[None, :] + mean
    of_seed = float(by_seed.var(ddof=1)) / seeds
    of_image = float(by_image.var(ddof=1)) / images
    both = (seeds - 1) * (images - 1)
    of_residual = float((residual**2).sum()) / both / (seeds * images)
    variance = max(of_seed + of_image - of_residual, of_seed, of_image)
    parts = ((of_seed, seeds - 1), (of_image, images - 1), (of_residual, both))
    spread = sum(part**2 / freedom for part, freedom in parts)
    if not spread:
        return None
    half = t_bound(level, variance**2 / spread) * math.sqrt(variance)
    return mean, mean - half, mean + half
