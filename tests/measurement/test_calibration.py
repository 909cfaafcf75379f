"""Do our intervals hold what they promise? On two-level samplers whose truth is known."""

from __future__ import annotations

import pytest
from calibration import SAMPLERS, calibrate


@pytest.mark.parametrize("kind", SAMPLERS)
def test_ratios_over_processes_cover_the_truth(kind):
    found = calibrate(kind, repetitions=200)
    assert found["ratio_coverage"] >= 0.93
