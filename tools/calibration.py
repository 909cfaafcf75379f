"""How often our intervals cover the truth, on samplers for which it is known.

    python tools/calibration.py results/throughput/calibration.json

writes the figures that results/ shows, from the repository's root.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter

from bench.measurement.compared_speeds import speeds_of
from bench.measurement.configurations import Configuration, Request
from bench.measurement.measured_network import MeasuredNetwork
from bench.measurement.rows import make_rows
from bench.measurement.speed_changes import judge
from bench.measurement.timing.replicates import Replicate, replicate
from bench.measurement.timing.sampling import Goal
from bench.measurement.timing.trial import Trial
from bench.report.tables.text_table import TextTable
from bench.system.environment import describe_environment
from bench.system.intervals import LOOKS, Interval

REPETITIONS = 1000
GOAL = Goal(max_seconds=12)
TRUE_SECONDS, TRUE_RATIO = 0.05, 1.25
_BLOCKS, _SAMPLES = 4, 3  # of one process and configuration
_START_UP = 5.0  # seconds between the measurements of two processes

Drift = Callable[[np.random.Generator, int], npt.NDArray[np.float64]]


def _slow_drift(tau: float) -> Drift:
    """Return a first-order autoregression of the machine's speed: 5 %, time constant *tau* s."""

    def draw(source: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
        step = _START_UP / (2 * _BLOCKS)  # one draw for each block of each configuration
        kept = math.exp(-step / tau)
        shocks = source.normal(0, 0.05 * math.sqrt(1 - kept**2), count)
        shocks[0] = source.normal(0, 0.05)
        return lfilter([1.0], [1.0, -kept], shocks)

    return draw


def _none(_source: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    return np.zeros(count)


@dataclass(frozen=True)
class Sampler:
    """Times on two levels: each process has an effect of its own, and so has each sample.

    Attributes:
        process: draws log effects of one configuration in processes.
        sample: draws log effects of samples.
        drift: draws log effects that both configurations of a process share, in time.
    """

    process: Callable[[np.random.Generator, int], npt.NDArray[np.float64]]
    sample: Callable[[np.random.Generator, int], npt.NDArray[np.float64]]
    drift: Drift = _none


def _normal(spread: float) -> Callable[[np.random.Generator, int], npt.NDArray[np.float64]]:
    return lambda source, count: source.normal(0, spread, count)


def _two_speeds(source: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    # Three of ten processes find the slower state, 15 % slower; centred, so that truth is known.
    return 0.15 * ((source.random(count) < 0.3) - 0.3) + source.normal(0, 0.01, count)


def _heavy(source: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    return 0.02 * source.standard_t(3, count)


SAMPLERS = {
    "steady": Sampler(_normal(0.03), _normal(0.03)),
    "heavy-tailed": Sampler(_normal(0.03), _heavy),
    "heavy-tailed processes": Sampler(_heavy, _heavy),
    "two speeds": Sampler(_two_speeds, _normal(0.03)),
    "drift over 1 s": Sampler(_normal(0.01), _normal(0.02), _slow_drift(1)),
    "drift over 10 s": Sampler(_normal(0.01), _normal(0.02), _slow_drift(10)),
    "drift over 60 s": Sampler(_normal(0.01), _normal(0.02), _slow_drift(60)),
}


def simulate(sampler: Sampler, seed: int, ratio: float = TRUE_RATIO) -> tuple[Trial, Trial]:
    """Measure two configurations, one *ratio* times as fast, by the program's own rule."""
    source = np.random.default_rng(seed)
    most = LOOKS[-1]
    effects = sampler.process(source, 2 * most).reshape(2, most)
    drift = sampler.drift(source, most * _BLOCKS * 2).reshape(most, _BLOCKS, 2)
    noise = sampler.sample(source, 2 * most * _BLOCKS * _SAMPLES)
    noise = noise.reshape(2, most, _BLOCKS, _SAMPLES)
    logs = effects[:, :, None, None] + drift.transpose(2, 0, 1)[..., None] + noise
    seconds = TRUE_SECONDS * np.exp(logs)
    seconds[1] /= ratio
    trials = a_trial("eager"), a_trial("onnxruntime")  # never opened
    trials[0].is_reference = True

    def run(usable: Sequence[Trial], number: int) -> Replicate:
        for trial in usable:
            measured = trial.fresh()
            blocks = seconds[trials.index(trial), number]
            measured.blocks = dict(enumerate(blocks.tolist()))
            # The process's own interval is not used, and its bootstrap would take the most time.
            typical = float(np.median(blocks))
            measured.interval = Interval(typical, typical, typical, _BLOCKS, True)
            measured.seconds_spent = 0.5
            trial.add_replicate(number, measured)
        return Replicate(number, None, "", _START_UP)

    replicate(trials, Request(), GOAL, run)
    return trials


def a_trial(name: str) -> Trial:
    """Return a trial that nothing runs."""
    target = MeasuredNetwork("", "model", (3, 4, 4), macs=10)
    return Trial(Configuration(target, name, "fp32", "contiguous", 1, "compute", "cpu", 1))


def calibrate(kind: str, repetitions: int = REPETITIONS) -> dict[str, Any]:
    """Simulate so many measurements; count the intervals that cover the truth."""
    speeds = ratios = 0
    counts = []
    for seed in range(repetitions):
        reference, other = simulate(SAMPLERS[kind], seed)
        ratio, speed = other.speedup_over(reference), reference.interval
        ratios += ratio.low <= TRUE_RATIO <= ratio.high
        speeds += speed.low <= TRUE_SECONDS <= speed.high
        counts.append(len(reference.replicates))
    return {
        "sampler": kind,
        "repetitions": repetitions,
        "ratio_coverage": ratios / repetitions,
        "speed_coverage": speeds / repetitions,
        "processes": statistics.mean(counts),
    }


def found_slower(
    kind: str, slowdown: float, repetitions: int = REPETITIONS, threshold: float = 0.0
) -> float:
    """Return the share of measurements in which `bench compare` finds a slowdown.

    Args:
        kind: of `SAMPLERS`.
        slowdown: 0.05 takes 5 % more time; of 0, what is found slower or faster counts.
        repetitions: number of measurements.
        threshold: that of `bench compare`.
    """
    alarms = {"slower"} if slowdown else {"slower", "faster"}
    verdicts = [verdict(kind, seed, slowdown, threshold) for seed in range(repetitions)]
    return sum(found in alarms for found in verdicts) / repetitions


def verdict(kind: str, seed: int, slowdown: float, threshold: float) -> str:
    """Judge one simulated measurement against its own reference, as `bench compare` does."""
    trials = simulate(SAMPLERS[kind], seed, 1 / (1 + slowdown))
    rows = make_rows(trials, measurement="", cpu="", goal=GOAL, ceiling=None)
    (change,), _ = judge(speeds_of("drawn", rows), threshold)
    return change.verdict


def page(document: dict[str, Any]) -> str:
    """Return the figures as Markdown, with what made them."""
    cells = [["sampler", "repetitions", "ratio covered", "images/s covered", "processes (mean)",
              "no change: found one", "5 % slower: found", "10 % slower: found"]]  # fmt: skip
    cells += [
        [
            row["sampler"],
            str(row["repetitions"]),
            f"{row['ratio_coverage']:.1%}",
            f"{row['speed_coverage']:.1%}",
            f"{row['processes']:.1f}",
            *(f"{row[f'found_{s:g}']:.1%}" for s in (0, 0.05, 0.1)),
        ]
        for row in document["rows"]
    ]
    table = TextTable(tuple(cells[0]), tuple(map(tuple, cells[1:])))
    lines = [
        "# How often do our 95 % intervals cover the truth?", "", *table.to_markdown(), "",
        "Times are drawn, not measured, so the truth is known: each process has an effect of its",
        "own, and so has each sample; drifts of 5 % are shared by the two configurations that are",
        "compared. What stops the sampling is the program's own rule, with its four looks. The",
        "ratio is of two interleaved configurations. Where the machine drifts over ten seconds or",
        "more, images/s are covered less often than their interval says, and ratios are not",
        "affected: compare by ratios.",
        "",
        "- command: `python tools/calibration.py FILE`",
        f"- commit: {document['environment']['git_commit']}; {document['created_at']}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    """Calibrate on every sampler; write JSON, and Markdown beside it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path, metavar="FILE.json", help="what is written")
    path = parser.parse_args().file
    document = {
        "rows": [
            calibrate(kind) | {f"found_{s:g}": found_slower(kind, s) for s in (0, 0.05, 0.1)}
            for kind in SAMPLERS
        ],
        "environment": describe_environment("cpu", threads=1),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    path.write_text(json.dumps(document, indent=1) + "\n")
    path.with_suffix(".md").write_text(page(document))


if __name__ == "__main__":
    main()
