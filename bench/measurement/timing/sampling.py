"""The sampling plan: rounds of blocks of all configurations in random order, until enough."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.measurement.timing.trial import Trial

# An interval needs six blocks at all; stopping at the first narrow one among more looks costs
# less coverage (tests/measurement/test_calibration.py).
MIN_BLOCKS = 8
_BLOCK_SECONDS = 0.25
_LONGEST_BLOCK = 200  # samples


@dataclass(frozen=True)
class Goal:
    """When to stop.

    Attributes:
        target_width: half-width of the interval relative to the median.
        max_seconds: for each configuration, after warm-up.
        min_samples: number of timed batches that a percentile needs.
        block_seconds: approximate length of a block.
        rounds: number of blocks after which to stop, whatever the width of the interval; None
            where one process is to reach that width.
        only_bounded: whether only configurations whose p99 is to be bounded need `min_samples`.
    """

    target_width: float = 0.02
    max_seconds: float = 12.0
    min_samples: int = 0
    block_seconds: float = _BLOCK_SECONDS
    rounds: int | None = None
    only_bounded: bool = False

    def is_reached(self, trial: Trial) -> bool:
        """Return whether a trial's interval is narrow enough and it has enough samples."""
        if self.rounds is not None:
            return len(trial.blocks) >= self.rounds and self.has_samples(trial)
        return (
            trial.interval is not None
            and trial.interval.confident
            and len(trial.blocks) >= MIN_BLOCKS
            and trial.interval.half_width <= self.target_width
            and self.has_samples(trial)
        )

    def has_samples(self, trial: Trial) -> bool:
        """Return whether a trial has the samples that its percentiles need."""
        needed = not self.only_bounded or trial.configuration.bounded
        return not needed or trial.timed_batches >= self.min_samples


def run_plan(
    trials: Sequence[Trial],
    goal: Goal,
    *,
    seed: int = 0,
    on_event: Callable[[dict[str, Any]], None] = lambda _event: None,
    now: Callable[[], float] = time.monotonic,
) -> None:
    """Warm up every trial, then sample all of them round by round, until each reaches the goal.

    Trials are filled in place; one that fails is marked, and the others continue.

    Args:
        trials: open ones.
        goal: when a trial is done.
        seed: of the random order inside a round.
        on_event: called with `warm_up`, `block`, `round` and `failed`.
        now: a clock in seconds, for the budget.
    """
    for place, trial in enumerate(trials, 1):
        on_event({"event": "warm_up", "what": trial.name, "number": place, "of": len(trials)})
        _warm_up(trial, goal, on_event)
    order = random.Random(seed)  # noqa: S311 - the order of blocks, nothing secret
    number = 0
    while unfinished := _unfinished(trials, goal):
        order.shuffle(unfinished)
        for position, trial in enumerate(unfinished):
            on_event({"event": "block", "what": trial.name, "round": number, "of": goal.rounds})
            begun = now()
            with trial.recording_failure():
                trial.blocks[number] = trial.opened().block(trial.samples_per_block)
                trial.positions[number] = position
            trial.seconds_spent += now() - begun
            _report_failure(trial, on_event)
            trial.update_interval()
        number += 1
        on_event({"event": "round", "round": number, **_done(trials, goal)})
    for trial in trials:
        trial.update_interval(always=True)


def _warm_up(trial: Trial, goal: Goal, on_event: Callable[[dict[str, Any]], None]) -> None:
    with trial.recording_failure():
        trial.warm_up = trial.opened().warm_up(goal.max_seconds / 4)
        sample = trial.warm_up.typical * trial.warm_up.repeats
        wanted = goal.block_seconds / max(sample, 1e-9)
        trial.samples_per_block = max(1, min(_LONGEST_BLOCK, round(wanted)))
    _report_failure(trial, on_event)


def _report_failure(trial: Trial, on_event: Callable[[dict[str, Any]], None]) -> None:
    if trial.status != "complete":
        on_event({"event": "failed", "what": trial.name, "error": trial.error})


def _unfinished(trials: Sequence[Trial], goal: Goal) -> list[Trial]:
    """Return the trials of the next round: those not done, and the references of their groups."""
    able = [t for t in trials if t.status == "complete" and t.seconds_spent < goal.max_seconds]
    groups = {t.group for t in able if not goal.is_reached(t)}
    return [t for t in able if not goal.is_reached(t) or (t.is_reference and t.group in groups)]


def _done(trials: Sequence[Trial], goal: Goal) -> dict[str, Any]:
    """Return how many trials are done, of how many, and the most seconds that the others take."""
    left = [
        max(0.0, goal.max_seconds - t.seconds_spent)
        for t in trials
        if t.status == "complete" and not goal.is_reached(t)
    ]
    done = len(trials) - sum(seconds > 0 for seconds in left)
    return {"done": done, "of": len(trials), "seconds_left": sum(left)}
