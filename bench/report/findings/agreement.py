"""Trained networks compared on the very same test images, seed by seed (McNemar's exact test)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bench.errors import BenchError
from bench.report.findings.statistics import SIGNIFICANCE, Discordance, holm_values, mcnemar

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from bench.store import Store, StudyRecord

HEADINGS = (
    "variant", "reference", "seed", "images", "only the variant right", "only the reference right",
    "p (exact, Holm)",
)  # fmt: skip
READING = (
    "Each row compares two trained networks on the same test images. It does not see how much "
    "another random seed would change, so it says nothing about the design by itself: that is the "
    "paired difference over seeds above. Where the networks of one design differ from seed to seed "
    "as often as they differ from the reference, these rows carry no news."
)


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

    @property
    def cells(self) -> list[str]:
        """One row under `HEADINGS`."""
        p = self.found.p_value
        return [
            self.variant, self.reference, str(self.seed), f"{self.found.images:,}",
            str(self.found.only_ours), str(self.found.only_theirs),
            "<0.001" if p < 0.001 else f"{p:.3f}",  # noqa: PLR2004 - APA style
        ]  # fmt: skip


@dataclass(frozen=True)
class Agreement:
    """How a study's networks differ on the same test images.

    Attributes:
        comparisons: every variant against its reference, seed by seed.
        among_seeds: variant → its own networks, each seed against the next one: the measure for
            how much a random seed alone changes; p-values Holm-corrected within the variant.
        notes: what is left out, and why.
    """

    comparisons: tuple[SeedComparison, ...]
    among_seeds: dict[str, tuple[Discordance, ...]]
    notes: tuple[str, ...]

    @property
    def sentences(self) -> list[str]:
        """What the rows say of each variant, counted and nothing more."""
        grouped = itertools.groupby(self.comparisons, lambda c: (c.variant, c.reference))
        return [
            self._sentence(variant, reference, [c.found for c in group])
            for (variant, reference), group in grouped
        ]

    def _sentence(self, variant: str, reference: str, found: list[Discordance]) -> str:
        differing = [d for d in found if d.p_value < SIGNIFICANCE]
        better = sum(d.only_ours > d.only_theirs for d in differing)
        text = (
            f"{variant} and {reference} can be told apart on the same test images in "
            f"{len(differing)} of {_count(len(found), 'seed')}"
        )
        if differing:
            text += f" ({better} for {variant}, {len(differing) - better} for {reference})"
        own = self.among_seeds.get(reference, ())
        if own:
            differ = sum(d.p_value < SIGNIFICANCE for d in own)
            text += (
                f"; of {reference}'s own seeds, {differ} of {_count(len(own), 'pair')} can, "
                "for comparison"
            )
        return f"{text}."


def agreement(store: Store, study: StudyRecord) -> Agreement:
    """Compare a study's networks on the same test images.

    Only finished runs whose test images are the same take part; a damaged file is noted.
    """
    answers = _Answers(store)
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
    """Which test images each run classifies correctly, each read once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.notes: list[str] = []
        self.known: dict[str, tuple[str, npt.NDArray[np.bool_]] | None] = {}

    def compare(self, ours: str, theirs: str | None) -> Discordance | None:
        """Compare two runs; None if one has no answers, or the images are others."""
        first, second = self._of(ours), self._of(theirs)
        if first is None or second is None or first[0] != second[0]:
            return None
        return mcnemar(first[1], second[1])

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
        record = self.store.read_run(run) if self.store.folder(run).is_dir() else None
        if record is None or "predictions.safetensors" not in record.files:
            return None
        if record.result.get("timing_only"):  # made-up images have no right answer
            return None
        tensors = self.store.read_tensors(run, "predictions.safetensors")
        right = (tensors["predictions"] == tensors["labels"]).numpy()
        return str(record.result.get("dataset_fingerprint")), right


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
