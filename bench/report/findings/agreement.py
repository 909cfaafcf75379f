"""Trained networks compared on the same test images, seed by seed (McNemar's exact test)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.report.findings.answer import MOST_NAMED, first_named
from bench.report.findings.statistics import Discordance, mcnemar, new_images_interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from bench.store import RunRecord, StudyRecord


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
        among_seeds: reference → its own networks, each seed against the next one, which shows how
            much a random seed alone changes.
        notes: what is left out, and why.
        new_images: variant → its difference in accuracy from its reference, with the 95 % interval
            for new seeds and new test images; of two seeds or more.
    """

    comparisons: tuple[SeedComparison, ...]
    among_seeds: dict[str, tuple[Discordance, ...]]
    notes: tuple[str, ...]
    new_images: dict[str, tuple[float, float, float]] = field(default_factory=dict)

    @property
    def sentences(self) -> list[str]:
        """One sentence per variant: how often it and its reference disagree, and the difference."""
        grouped = itertools.groupby(self.comparisons, lambda c: (c.variant, c.reference))
        groups = [(pair, [c.found for c in group]) for pair, group in grouped]
        if len(groups) > MOST_NAMED:
            groups.sort(key=lambda group: -_rate(group[1]))
        sentences = [self._sentence(*pair, found) for pair, found in groups]
        return first_named(sentences, "more variants disagree as often or less.")

    def _sentence(self, variant: str, reference: str, found: Sequence[Discordance]) -> str:
        """Say at which rate two networks of one seed disagree, and two seeds of the reference."""
        text = (
            f"For {_rate(found) * 100:.1f} % of the test images, just one of {variant} and "
            f"{reference} is right ({_seeds(found)})"
        )
        if own := self.among_seeds.get(reference, ()):
            text += f"; of two seeds of {reference}, for {_rate(own) * 100:.1f} %"
        if interval := self.new_images.get(variant):
            mean, low, high = (f"{value * 100:+.1f}" for value in interval)
            text += (
                f"; for new seeds and new test images, the difference in accuracy is {mean} points "
                f"(95 % interval of this comparison alone {low} to {high})"
            )
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
) -> Agreement:
    """Compare a study's networks on the same test images.

    Args:
        study: which run stands for which variant and seed.
        records: run → its record.
        predictions: run → its `predictions` and the `labels`, of the runs that have them.
        notes: why predictions of a run are missing.
    """
    right = {
        run: tensors["predictions"] == tensors["labels"] for run, tensors in predictions.items()
    }

    def compare(first: str, second: str | None) -> Discordance | None:
        """Compare two runs; None if one has no predictions, or their test images differ."""
        if first not in right or second not in right:
            return None
        prints = {records[run].result.get("dataset_fingerprint") for run in (first, second)}
        return mcnemar(right[first], right[second]) if len(prints) == 1 else None

    def among(runs: dict[str, str]) -> tuple[Discordance, ...]:
        """Compare the networks of one variant, each with the next one."""
        return tuple(d for pair in itertools.pairwise(runs.values()) if (d := compare(*pair)))

    variants = study.variants
    rows = [
        SeedComparison(name, entry["reference"], int(seed), found)
        for name, entry in variants.items()
        if entry["reference"] in variants
        for seed, run in entry["runs"].items()
        if (found := compare(run, variants[entry["reference"]]["runs"].get(seed)))
    ]
    differences: dict[str, list[npt.NDArray[Any]]] = {}
    for row in rows:
        ours, theirs = (
            right[variants[name]["runs"][str(row.seed)]] for name in (row.variant, row.reference)
        )
        differences.setdefault(row.variant, []).append(ours.astype(int) - theirs)
    new_images = {
        name: interval
        for name, by_seed in differences.items()
        if len(by_seed) > 1
        and len({len(images) for images in by_seed}) == 1
        and (interval := new_images_interval(np.stack(by_seed)))
    }
    references = dict.fromkeys(row.reference for row in rows)
    own = {name: among(variants[name]["runs"]) for name in references}
    return Agreement(tuple(rows), own, tuple(notes), new_images)
