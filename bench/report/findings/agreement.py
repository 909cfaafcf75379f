"""Trained networks compared on the same test images, seed by seed (McNemar's exact test)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bench.report.findings.answer import MOST_NAMED, first_named
from bench.report.findings.statistics import (
    SIGNIFICANCE,
    Discordance,
    counted,
    holm_values,
    mcnemar,
)

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
        found: how they differ; its p-value is Holm-corrected over all rows of the study.
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
            much a random seed alone changes; p-values are Holm-corrected within the variant.
        notes: what is left out, and why.
    """

    comparisons: tuple[SeedComparison, ...]
    among_seeds: dict[str, tuple[Discordance, ...]]
    notes: tuple[str, ...]

    @property
    def sentences(self) -> list[str]:
        """One sentence per variant that counts its significant differences."""
        grouped = itertools.groupby(self.comparisons, lambda c: (c.variant, c.reference))
        groups = [(pair, [c.found for c in group]) for pair, group in grouped]
        if len(groups) > MOST_NAMED:
            groups.sort(key=lambda group: -sum(d.p_value < SIGNIFICANCE for d in group[1]))
        sentences = [self._sentence(*pair, found) for pair, found in groups]
        return first_named(sentences, "more variants differ for as many seeds or fewer.")

    def _sentence(self, variant: str, reference: str, found: list[Discordance]) -> str:
        differing = [d for d in found if d.p_value < SIGNIFICANCE]
        better = sum(d.only_first > d.only_second for d in differing)
        text = (
            f"{variant} and {reference} differ significantly on the same test images for "
            f"{len(differing)} of {counted(len(found), 'seed')}"
        )
        if differing:
            text += (
                f" ({variant} is better for {better}, {reference} for {len(differing) - better})"
            )
        own = self.among_seeds.get(reference, ())
        if own:
            differ = sum(d.p_value < SIGNIFICANCE for d in own)
            text += (
                f"; for comparison, {differ} of {counted(len(own), 'pair')} of {reference}'s own "
                f"seeds {'does' if len(own) == 1 else 'do'}"
            )
        return f"{text}."


def agreement(
    study: StudyRecord,
    records: Mapping[str, RunRecord],
    predictions: Mapping[str, Mapping[str, npt.NDArray[Any]]],
    notes: Sequence[str] = (),
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
        found = [d for pair in itertools.pairwise(runs.values()) if (d := compare(*pair))]
        corrected = holm_values([d.p_value for d in found])
        return tuple(replace(d, p_value=p) for d, p in zip(found, corrected, strict=True))

    variants = study.variants
    rows = [
        SeedComparison(name, entry["reference"], int(seed), found)
        for name, entry in variants.items()
        if entry["reference"] in variants
        for seed, run in entry["runs"].items()
        if (found := compare(run, variants[entry["reference"]]["runs"].get(seed)))
    ]
    corrected = holm_values([row.found.p_value for row in rows])
    comparisons = tuple(
        replace(row, found=replace(row.found, p_value=p))
        for row, p in zip(rows, corrected, strict=True)
    )
    references = dict.fromkeys(row.reference for row in rows)
    return Agreement(
        comparisons, {name: among(variants[name]["runs"]) for name in references}, tuple(notes)
    )
