"""Do our intervals hold what they promise? On two-level samplers whose truth is known."""

from __future__ import annotations

import pytest
from calibration import SAMPLERS, calibrate, found_slower


@pytest.mark.parametrize("kind", SAMPLERS)
def test_ratios_over_processes_cover_the_truth(kind):
    found = calibrate(kind, repetitions=200)
    assert found["ratio_coverage"] >= 0.93


def test_slowdowns_of_5_and_10_percent_are_found_and_none_where_there_is_none():
    assert found_slower("steady", 0.05, 100) >= 0.90
    assert found_slower("steady", 0.10, 100) >= 0.99
    assert found_slower("steady", 0.0, 100) <= 0.05
