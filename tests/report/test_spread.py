"""How far seeds lie apart, by what they vary."""

from __future__ import annotations

import numpy as np
import pytest

from bench.report.findings.statistics import deviation, estimate, variance_ratio
from bench.report.findings.summaries import VariantSummary
from bench.report.tables.study import spread_table
from bench.store import RunRecord, StudyRecord

SOURCE = np.random.default_rng(0)


def test_intervals_cover_the_true_deviation_and_the_true_ratio_of_variances():
    trials = 2000
    covered = covered_ratio = 0
    for part, whole in zip(
        SOURCE.normal(0.9, 0.01, (trials, 8)), SOURCE.normal(0.9, 0.02, (trials, 12)), strict=True
    ):
        value, low, high = deviation(estimate(part))
        assert value == pytest.approx(np.std(part, ddof=1))
        covered += low <= 0.01 <= high
        ratio, low, high = variance_ratio(estimate(part), estimate(whole))
        assert ratio == pytest.approx(np.var(part, ddof=1) / np.var(whole, ddof=1))
        covered_ratio += low <= 0.25 <= high
    for count in (covered, covered_ratio):
        assert count / trials == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("values", [[0.9], [0.9, 0.9, 0.9]])
def test_without_an_interval_there_is_no_deviation(values):
    assert deviation(estimate(values)) is None
    assert variance_ratio(estimate(values), estimate([0.1, 0.2])) is None


def table(**varied):
    accuracies = {"all": [0.80, 0.90, 1.00], "part": [0.85, 0.90, 0.95], "one": [0.9]}
    study, records, summaries = StudyRecord("s", "?", {}), {}, []
    for name, seed_varies in varied.items():
        reference = None if name == "all" else "all"
        study.variants[name] = {"reference": reference, "runs": {"0": name}}
        recipe = {"seed_varies": seed_varies} if seed_varies else {}
        records[name] = RunRecord(name, {"recipe": recipe}, "complete", {}, None, 1.0)
        found = estimate(accuracies[name])
        summaries.append(VariantSummary(name, reference, None, None, found, None, None, None, {}))
    return spread_table(summaries, study, records)


def test_each_variant_has_its_deviation_and_its_share_of_the_references_variance():
    assert not table(all="order", part="order")
    whole, part, one = table(all="everything", part=None, one="order").rows
    assert whole == ("all", "everything", "3", "10.00 [5.21, 62.85]", "-")
    assert part == ("part", "training", "3", "5.00 [2.60, 31.42]", "25 [1, 975]")
    assert one == ("one", "order", "1", "-", "-")
