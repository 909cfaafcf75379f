"""Trained networks compared on the same test images, seed by seed (McNemar's exact test)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bench.errors import BenchError
from bench.report.findings.statistics import SIGNIFICANCE, Discordance, holm_values, mcnemar

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

    from bench.store import RunRecord, Store, StudyRecord


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
        return [
            self._sentence(variant, reference, [c.found for c in group])
            for (variant, reference), group in grouped
        ]

    def _sentence(self, variant: str, reference: str, found: list[Discordance]) -> str:
        differing = [d for d in found if d.p_value < SIGNIFICANCE]
        better = sum(d.only_first > d.only_second for d in differing)
        text = (
            f"{variant} and {reference} differ significantly on the same test images for "
            f"{len(differing)} of {_count(len(found), 'seed')}"
        )
        if differing:
            text += (
                f" ({variant} is better for {better}, {reference} for {len(differing) - better})"
            )
        own = self.among_seeds.get(reference, ())
        if own:
            differ = sum(d.p_value < SIGNIFICANCE for d in own)
            text += (
                f"; for comparison, {differ} of {_count(len(own), 'pair')} of {reference}'s own "
                f"seeds {'does' if len(own) == 1 else 'do'}"
            )
        return f"{text}."


def agreement(store: Store, study: StudyRecord, records: Mapping[str, RunRecord]) -> Agreement:
    """Compare a study's networks on the same test images.

    Only complete runs with the same test images are compared; a damaged file is noted.

    Args:
        store: the results folder that holds the predictions.
        study: the study.
        records: run → its record.
    """
    answers = _Answers(store, records)
    rows = [
        SeedComparison(name, entry["reference"], int(seed), found)
        for name, entry in study.variants.items()
        for seed, run in entry["runs"].items()
        if (found := answers.compare(run, _run_of(study, entry["reference"], seed))) is not None
    ]
    corrected = holm_values([row.found.p_value for row in rows])
    comparisons = tuple(
        replace(row, found=replace(row.found, p_value=p))
        for row, p in zip(rows, corrected, strict=True)
    )
    references = dict.fromkeys(row.reference for row in rows)
    among = {name: _among(answers, study.variants[name]["runs"]) for name in references}
    return Agreement(comparisons, among, tuple(answers.notes))


def _run_of(study: StudyRecord, variant: str | None, seed: str) -> str | None:
    run: str | None = study.variants.get(variant or "", {"runs": {}})["runs"].get(seed)
    return run


def _among(answers: _Answers, runs: dict[str, str]) -> tuple[Discordance, ...]:
    pairs = itertools.pairwise(runs.values())
    found = [d for one, other in pairs if (d := answers.compare(one, other)) is not None]
    corrected = holm_values([d.p_value for d in found])
    return tuple(replace(d, p_value=p) for d, p in zip(found, corrected, strict=True))


class _Answers:
    """Which test images each run classifies correctly; each run's predictions are read once."""

    def __init__(self, store: Store, records: Mapping[str, RunRecord]) -> None:
        self.store = store
        self.records = records
        self.notes: list[str] = []
        self.known: dict[str, tuple[str, npt.NDArray[np.bool_]] | None] = {}

    def compare(self, first: str, second: str | None) -> Discordance | None:
        """Compare two runs; None if one has no predictions, or their test images differ."""
        one, other = self._of(first), self._of(second)
        if one is None or other is None or one[0] != other[0]:
            return None
        return mcnemar(one[1], other[1])

    def _of(self, run: str | None) -> tuple[str, npt.NDArray[np.bool_]] | None:
        if run is None:
            return None
        if run not in self.known:
            try:
                self.known[run] = self._read(run)
            except BenchError as error:
                self.known[run] = None
                self.notes.append(f"Left out: {error}")
        return self.known[run]

    def _read(self, run: str) -> tuple[str, npt.NDArray[np.bool_]] | None:
        """Return the fingerprint of a run's dataset, and which test images it got right."""
        record = self.records.get(run)
        if record is None or "predictions.safetensors" not in record.files:
            return None
        if record.result.get("timing_only"):  # synthetic images have no right answer
            return None
        tensors = self.store.read_tensors(run, "predictions.safetensors")
        right = (tensors["predictions"] == tensors["labels"]).numpy()
        return str(record.result.get("dataset_fingerprint")), right


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
