"""How often our intervals cover the true median, on samplers of known truth.

    python tools/calibration.py results/throughput/calibration.json

writes the figures that results/ shows, from the repository's root.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.measurement.configurations import Configuration
from bench.measurement.measured_network import MeasuredNetwork
from bench.measurement.timing.sampling import Goal, run_plan
from bench.measurement.timing.trial import Trial
from bench.measurement.timing.warmup import WarmUp
from bench.report.tables.text_table import TextTable
from bench.system.environment import describe_environment

Draw = Callable[[], float]
REPETITIONS = 1000
GOAL = Goal(max_seconds=12)


@dataclass
class SimulatedTime:
    """A clock that only the simulated samples move."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class SimulatedRunner:
    """A runner whose times are drawn from a known distribution."""

    clock: SimulatedTime
    draw: Draw

    def warm_up(self, cap_seconds: float) -> WarmUp:
        del cap_seconds
        return WarmUp((self.draw(),), True)

    def block(self, count: int) -> list[float]:
        seconds = [self.draw() for _ in range(count)]
        self.clock.now += sum(seconds)
        return seconds


def a_trial(name: str, runner: SimulatedRunner) -> Trial:
    target = MeasuredNetwork("", "model", (3, 4, 4), macs=10)
    made = Configuration(target, name, "fp32", "contiguous", 1, "compute", "cpu", 1)
    return Trial(made, runner)


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


def calibrate(kind: str, repetitions: int = REPETITIONS) -> dict[str, Any]:
    """Sample so many times with the plan's own stopping rule; count what covers the truth."""
    make, truth = TRUTH[kind]
    if truth is None:
        draw = make(random.Random(99))
        many = sorted(draw() for _ in range(200_000))
        truth = many[len(many) // 2]
    covered = reached = 0
    for seed in range(repetitions):
        clock = SimulatedTime()
        trial = a_trial(kind, SimulatedRunner(clock, make(random.Random(seed))))
        run_plan([trial], GOAL, seed=seed, now=clock)
        covered += trial.interval.low <= truth <= trial.interval.high
        reached += GOAL.is_reached(trial)
    return {
        "sampler": kind,
        "repetitions": repetitions,
        "coverage": covered / repetitions,
        "reached": reached / repetitions,
    }


def page(document: dict[str, Any]) -> str:
    """Return the figures as Markdown, with what made them."""
    cells = [["sampler", "repetitions", "covers the true median", "reached ±2 %"]]
    cells += [
        [row["sampler"], str(row["repetitions"]), f"{row['coverage']:.1%}", f"{row['reached']:.1%}"]
        for row in document["rows"]
    ]
    table = TextTable(tuple(cells[0]), tuple(map(tuple, cells[1:])))
    lines = [
        "# How often do our 95 % intervals cover the truth?", "", *table.to_markdown(), "",
        "Times are drawn, not measured, so the truth is known; what stops the sampling is the",
        "program's own rule. Where the times drift more slowly than the run is long (a wave of",
        "±3 % over thousands of samples), an interval knows only of its own stretch of the wave",
        "and covers the long-run median far less often than it says: repeat the whole command.",
        "",
        "- command: `python tools/calibration.py FILE`",
        f"- commit: {document['environment']['git_commit']}; {document['created_at']}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    """Calibrate on every sampler; write JSON, and Markdown beside it."""
    document = {
        "rows": [calibrate(kind) for kind in TRUTH],
        "environment": describe_environment("cpu", threads=1),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    path = Path(sys.argv[1])
    path.write_text(json.dumps(document, indent=1) + "\n")
    path.with_suffix(".md").write_text(page(document))


if __name__ == "__main__":
    main()
