"""The sampling plan: blocks of all configurations, interleaved in random order, until enough."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.measurement.backends import OutOfMemoryError, UnsupportedError
from bench.measurement.timing.intervals import Interval, median_interval
from bench.system.memory import says_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.measurement.timing.runner import Lane
    from bench.measurement.timing.warmup import WarmUp

# Eight blocks: at least six carry a 95 % interval at all, and stopping at the first narrow
# one among more looks costs less coverage (tests/measure/test_calibration.py).
MIN_BLOCKS = 8
_BLOCK_SECONDS = 0.25
_LONGEST_BLOCK = 200


@dataclass(frozen=True)
class Goal:
    """When to stop.

    Attributes:
        target_width: half-width of the interval relative to the median.
        max_seconds: for each configuration, after warm-up.
        min_samples: what a percentile needs besides, for latencies.
        block_seconds: about how long a block runs.
    """

    target_width: float = 0.02
    max_seconds: float = 12.0
    min_samples: int = 0
    block_seconds: float = _BLOCK_SECONDS


@dataclass
class Track:
    """One configuration's way through the plan.

    Attributes:
        name: unique in the plan.
        lane: what runs.
        group: those with the same group are compared; its reference goes on while any of
            them does, so that ratios are paired.
        is_reference: whether the group is compared with this one.
        blocks: round → seconds of each sample of that round's block.
        positions: round → place in that round's order.
        status: complete, out_of_memory, unsupported or failed.
        error: one line.
    """

    name: str
    lane: Lane
    group: str = ""
    is_reference: bool = False
    warm_up: WarmUp | None = None
    blocks: dict[int, list[float]] = field(default_factory=dict)
    positions: dict[int, int] = field(default_factory=dict)
    spent: float = 0.0
    per_block: int = 1
    interval: Interval | None = None
    looked_at: int = 0
    status: str = "complete"
    error: str | None = None

    @property
    def seconds(self) -> list[float]:
        """All samples, in order."""
        return [second for block in self.blocks.values() for second in block]

    def reached(self, goal: Goal) -> bool:
        """Whether its interval is narrow enough and it has the samples it needs."""
        return (
            self.interval is not None
            and self.interval.confident
            and len(self.blocks) >= MIN_BLOCKS
            and self.interval.half_width <= goal.target_width
            and len(self.seconds) >= goal.min_samples
        )

    def look(self, *, always: bool = False) -> None:
        """Compute the interval, but only after an eighth more blocks: each look is a chance."""
        if self.blocks and (always or len(self.blocks) >= self.looked_at * 1.125):
            self.interval = median_interval(list(self.blocks.values()))
            self.looked_at = len(self.blocks)

    def fail(self, error: BaseException) -> None:
        """Record why it goes no further."""
        self.status, self.error = status_of(error)


def run_plan(
    tracks: Sequence[Track],
    goal: Goal,
    *,
    seed: int = 0,
    on_event: Callable[[dict[str, Any]], None] = lambda _event: None,
    now: Callable[[], float] = time.monotonic,
) -> None:
    """Warm up every track, then sample all of them round by round.

    Args:
        tracks: filled in place; one that fails is marked, and the others go on.
        goal: when a track is done.
        seed: of the random order inside a round.
        on_event: told of `warm_up`, `round` and `failed`.
        now: a clock, for the budget.
    """
    for track in tracks:
        _warm(track, goal, on_event)
    order = random.Random(seed)  # noqa: S311 - the order of blocks, nothing secret
    number = 0
    while going := _open(tracks, goal):
        order.shuffle(going)
        for position, track in enumerate(going):
            begun = now()
            try:
                track.blocks[number] = track.lane.block(track.per_block)
            except Exception as error:  # one lane's failure must not cost the others
                track.fail(error)
                on_event({"event": "failed", "track": track.name, "error": track.error})
            else:
                track.positions[number] = position
            track.spent += now() - begun
            track.look()
        number += 1
        on_event({"event": "round", "round": number, "shares": _shares(tracks, goal)})
    for track in tracks:
        track.look(always=True)


def _warm(track: Track, goal: Goal, on_event: Callable[[dict[str, Any]], None]) -> None:
    on_event({"event": "warm_up", "track": track.name})
    try:
        track.warm_up = track.lane.warm_up(goal.max_seconds / 4)
    except Exception as error:  # recorded, and the others go on
        track.fail(error)
        on_event({"event": "failed", "track": track.name, "error": track.error})
        return
    wanted = goal.block_seconds / max(track.warm_up.typical, 1e-9)
    track.per_block = max(1, min(_LONGEST_BLOCK, round(wanted)))


def _open(tracks: Sequence[Track], goal: Goal) -> list[Track]:
    """Tracks that take part in the next round."""
    able = [t for t in tracks if t.status == "complete" and t.spent < goal.max_seconds]
    unfinished = [t for t in able if not t.reached(goal)]
    groups = {t.group for t in unfinished}
    return [t for t in able if t in unfinished or (t.is_reference and t.group in groups)]


def _shares(tracks: Sequence[Track], goal: Goal) -> dict[str, float]:
    """How far each track is, 0…1: of its budget, or done."""
    return {
        t.name: 1.0
        if t.status != "complete" or t.reached(goal)
        else min(1.0, t.spent / goal.max_seconds)
        for t in tracks
    }


def status_of(error: BaseException) -> tuple[str, str]:
    """Return a row's status and its one-line error."""
    text = " ".join(str(error).split())[:300] or type(error).__name__
    # torch.cuda's own class has that name; the others are told apart by what they say.
    named = isinstance(error, OutOfMemoryError | MemoryError) or (
        type(error).__name__ == "OutOfMemoryError"
    )
    if named or says_out_of_memory(text):
        return "out_of_memory", text
    return ("unsupported" if isinstance(error, UnsupportedError) else "failed"), text
