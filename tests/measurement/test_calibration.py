"""Do our intervals hold what they promise? On samplers whose true median is known."""

from __future__ import annotations

import pytest
from calibration import calibrate

# What drift does is said, not hidden: an interval of one short run does not know of slower
# changes than the run is long.
LEAST = {"steady": 0.93, "heavy_tailed": 0.90, "bimodal": 0.90, "drifting": 0.0}


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(LEAST))
def test_intervals_cover_the_true_median(kind):
    assert calibrate(kind)["coverage"] >= LEAST[kind]
