"""Trained networks compared on the same test images, seed by seed (McNemar's exact test)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.report.findings.answer import MOST_NAMED, NOT_PRIMARY, first_named
from bench.report.findings.statistics import Discordance, mcnemar, new_images_interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from bench.report.findings.statistics import Difference
    from bench.store import RunRecord, StudyRecord

_DOUBTS = {
    "pending": "not all of its runs have ended",
    "missing": "the one that seems better lacks results",
    "secondary": NOT_PRIMARY,
}


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
            for new seeds and new test images, simultaneous as that of the study's answer.
        not_given: variant → why it has no such interval.
    """

    comparisons: tuple[SeedComparison, ...]
    among_seeds: dict[str, tuple[Discordance, ...]]
    notes: tuple[str, ...]
    new_images: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    not_given: dict[str, str] = field(default_factory=dict)

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
                f"(95 % interval {low} to {high})"
            )
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
        tested: variant → its difference from its reference, as the study's answer has it.
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

    declared = {str(seed) for seed in study.declared_seeds}
    runs = {
        name: {s: run for s, run in entry["runs"].items() if not declared or s in declared}
        for name, entry in study.variants.items()
    }
    pairs = {n: r for n, e in study.variants.items() if (r := e["reference"]) in runs}
    rows = [
        SeedComparison(name, reference, int(seed), found)
        for name, reference in pairs.items()
        for seed, run in runs[name].items()
        if (found := compare(run, runs[reference].get(seed)))
    ]
    new_images, not_given = {}, {}
    for name, reference in pairs.items():
        seeds = [str(row.seed) for row in rows if row.variant == name]
        difference = tested.get(name)
        if difference is None or difference.low is None or difference.high is None or not seeds:
            continue
        planned = declared or {*runs[name], *runs[reference]}
        if why := _not_given(difference, planned.difference(seeds)):
            not_given[name] = why
            continue
        by_seed = [right[runs[name][s]].astype(int) - right[runs[reference][s]] for s in seeds]
        if len({len(images) for images in by_seed}) > 1:
            continue
        interval = new_images_interval(np.stack(by_seed), difference.level)
        if interval is not None:  # new images do not make it more certain
            mean, low, high = interval
            limit = difference.limit
            new_images[name] = (
                mean,
                max(min(low, difference.low), -limit),
                min(max(high, difference.high), limit),
            )
    references = dict.fromkeys(row.reference for row in rows)
    own = {name: among(runs[name]) for name in references}
    return Agreement(tuple(rows), own, tuple(notes), new_images, not_given)


def _not_given(difference: Difference, lacking: set[str]) -> str | None:
    """Return why no difference for new images may be given: the answer's reasons, and one more."""
    if difference.doubt is not None:
        return _DOUBTS[difference.doubt]
    if not lacking:
        return None
    seeds = ", ".join(sorted(lacking, key=int))
    return f"seed{'s' if len(lacking) > 1 else ''} {seeds} cannot be compared on the same images"
