"""The forest plot names the test behind its intervals."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bench.report.page.material import gather
from bench.report.page.training import forest
from bench.report.statistics import BOOTSTRAP_SEEDS, paired_difference
from bench.store import Store

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        (BOOTSTRAP_SEEDS - 1, "the 95 % interval of the paired t-test;"),
        (BOOTSTRAP_SEEDS, "the 95 % interval of the BCa bootstrap (p-values of the sign-flip "),
    ],
)
def test_the_caption_names_what_the_interval_is_of(trained: Path, seeds: int, words: str) -> None:
    material = gather(Store(trained), "tiny")
    ours = {seed: 0.80 + seed % 7 / 100 for seed in range(seeds)}
    found = paired_difference(ours, dict.fromkeys(range(seeds), 0.8))
    summaries = [replace(s, difference=found if s.reference else None) for s in material.summaries]
    assert words in forest(replace(material, summaries=summaries)).caption
