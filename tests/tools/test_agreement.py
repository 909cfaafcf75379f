"""The comparison with other instruments: equivalence, by the whole interval."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

import agreement
import pytest

PUBLISHED = Path(__file__).parents[2] / "results" / "throughput" / "agreement.json"

ENVIRONMENT = {
    "cpu": "A", "instruction_sets": ["avx"], "threads": 2, "torch": "2", "bench": "1",
    "python": "3", "git_commit": "c",
}  # fmt: skip


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [
        (0.98, 1.02, "yes"),
        (0.97, 1.03, "yes"),
        (0.99, 1.04, "not shown"),  # its near edge alone is within
        (0.90, 1.10, "not shown"),
        (1.04, 1.06, "no"),
        (0.90, 0.96, "no"),
    ],
)
def test_agreement_needs_the_whole_interval_within_three_per_cent(low, high, answer):
    row = {
        "model": "resnet18", "backend": "eager", "batch_size": 1, "instrument": "timeit",
        "ours_images_per_second": 100.0, "theirs_images_per_second": 100.0,
        "ratio": (low * high) ** 0.5, "ratio_low": low, "ratio_high": high, "warnings": [],
    }  # fmt: skip
    text = agreement.page(
        {"rows": [row], "environment": ENVIRONMENT, "command": "x", "created_at": "today"}
    )
    (line,) = (line for line in text.splitlines() if line.startswith("| resnet18"))
    assert line.strip("| ").split("|")[-1].strip() == answer


def test_the_published_page_shows_medians_of_the_seconds_beside_it():
    document = json.loads(PUBLISHED.read_text())
    for row in document["rows"]:
        for side, name in (("ours", "ours"), ("theirs", row["instrument"])):
            seconds = [second for block in row["seconds"][name] for second in block]
            shown = row[f"{side}_images_per_second"]
            assert shown == pytest.approx(row["batch_size"] / median(seconds))
