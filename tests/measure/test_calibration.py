"""Do our intervals hold what they promise? On samplers whose true median is known."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest

from bench.measure.sampling import Goal, Track, run_plan

from .conftest import FakeLane, FakeTime

Draw = Callable[[], float]


def steady(source: random.Random) -> Draw:
    return lambda: source.gauss(0.05, 0.0025)


def heavy_tailed(source: random.Random) -> Draw:
    return lambda: 0.05 * source.paretovariate(8)


def bimodal(source: random.Random) -> Draw:
    # Two clock speeds, 70 to 30: the median lies in the faster one.
    return lambda: source.gauss(0.05 if source.random() < 0.7 else 0.06, 0.001)


def drifting(source: random.Random) -> Draw:
    # A slow wave of ±3 %: samples of neighbouring blocks are alike.
    time = itertools.count(source.randrange(1000))
    steps = random.Random(0)
    wave = [0.0]
    for _ in range(5000):
        wave.append(0.995 * wave[-1] + steps.gauss(0, 0.003))
    return lambda: 0.05 * (1 + wave[next(time) % 5000]) * source.gauss(1, 0.01)


TRUTH = {
    "steady": (steady, 0.05),
    "heavy_tailed": (heavy_tailed, 0.05 * 2 ** (1 / 8)),
    "bimodal": (bimodal, None),
    "drifting": (drifting, None),
}
# What drift does is said, not hidden: an interval of one short run does not know of slower
# changes than the run is long.
LEAST = {"steady": 0.93, "heavy_tailed": 0.90, "bimodal": 0.90, "drifting": 0.0}


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(TRUTH))
def test_intervals_cover_the_true_median(kind, record_property):
    make, truth = TRUTH[kind]
    if truth is None:
        draw = make(random.Random(99))
        many = sorted(draw() for _ in range(200_000))
        truth = many[len(many) // 2]
    covered = reached = 0
    repetitions = 1000
    for seed in range(repetitions):
        clock = FakeTime()
        track = Track("x", FakeLane(clock, make(random.Random(seed))))
        run_plan([track], Goal(max_seconds=12), seed=seed, now=clock)
        covered += track.interval.low <= truth <= track.interval.high
        reached += track.reached(Goal(max_seconds=12))
    record_property("coverage", covered / repetitions)
    shares = f"coverage {covered / repetitions:.3f}, reached ±2 % {reached / repetitions:.3f}"
    print(f"{kind}: {shares}")  # noqa: T201 - the figures are the point; pytest -rP shows them
    assert covered / repetitions >= LEAST[kind]
