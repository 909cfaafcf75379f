"""Do our intervals hold what they promise? On two-level samplers whose truth is known."""

from __future__ import annotations

import pytest
from calibration import SAMPLERS, calibrate, found_slower


@pytest.mark.parametrize("kind", SAMPLERS)
def test_ratios_over_processes_cover_the_truth(kind):
    found = calibrate(kind, repetitions=200)
    assert found["ratio_coverage"] >= 0.93


@pytest.mark.parametrize(
    ("slowdown", "threshold", "least"), [(0.05, 0.01, 0.90), (0.10, 0.02, 0.99)]
)
def test_the_gate_finds_a_slowdown(slowdown, threshold, least):
    assert found_slower("steady", slowdown, 200, threshold) >= least


def test_the_gate_finds_nothing_where_nothing_changed():
    assert found_slower("steady", 0.0, 200, threshold=0.01) <= 0.01
