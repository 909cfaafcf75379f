"""One sentence on whether int8 pays on this machine: a first impression, from one process."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.system.intervals import ratio_interval
from bench.system.processor_use import read_processor_use, share_of_others, too_busy

if TYPE_CHECKING:
    import numpy.typing as npt

_WARM_UP = 2
_MIN_ROUNDS, _MAX_ROUNDS, _SECONDS = 9, 60, 6.0


@dataclass(frozen=True)
class Speed:
    """Speed of one file relative to another's, on this machine.

    Attributes:
        ratio: median over rounds; above 1 is faster.
        low: lower end of its 95 % bootstrap interval.
        high: upper end.
        rounds: number of rounds.
        batch_size: images per call.
        other_processes: share of the processor that other processes used meanwhile, 0…1; None if
            it is not known.
    """

    ratio: float
    low: float
    high: float
    rounds: int
    batch_size: int
    other_processes: float | None = 0.0


def relative_speed(fast: Any, base: Any, batch: npt.NDArray[Any]) -> Speed:
    """Time two sessions in turn, so that drift of the machine affects both alike."""
    for session in (fast, base) * _WARM_UP:
        _time(session, batch)
    base_seconds: dict[int, list[float]] = {}
    fast_seconds: dict[int, list[float]] = {}
    before, begun = read_processor_use(), time.perf_counter()
    for number in range(_MAX_ROUNDS):
        base_seconds[number] = [_time(base, batch)]
        fast_seconds[number] = [_time(fast, batch)]
        if number + 1 >= _MIN_ROUNDS and time.perf_counter() - begun >= _SECONDS:
            break
    ratio = ratio_interval(base_seconds, fast_seconds)
    assert ratio is not None  # noqa: S101 - both have every round
    others = share_of_others(before, read_processor_use())
    return Speed(ratio.median, ratio.low, ratio.high, ratio.blocks, len(batch), others)


def verdict(speed: Speed, drop: float | None, p_value: float | None, images: int) -> str:
    """Say what int8 gains in speed and costs in accuracy.

    An interval that includes 1 decides nothing. Even one that does not is of seconds in one
    process, so the sentence says "seems"; `bench throughput` measures in several. If other
    processes used much of the processor meanwhile, there is no verdict on speed.

    Args:
        speed: of the int8 file relative to fp32.
        drop: loss of accuracy in percentage points; None without a test set.
        p_value: of McNemar's test.
        images: size of the test set.
    """
    measured = f"{speed.ratio:.2f} times fp32's speed [{speed.low:.2f}, {speed.high:.2f}]"
    where = f"on this CPU, in one process (batch {speed.batch_size})"
    cost = "accuracy unknown (no test set)"
    if drop is not None:
        tested = f"{images:,} images (McNemar p = {p_value:.2g})"
        cost = f"accuracy {0.0 - drop:+.2f} points on {tested}"
    if busy := too_busy(speed.other_processes):
        return (
            f"No verdict on the speed of int8: {busy} ({cost}); measure it with bench throughput "
            "while nothing else runs."
        )
    if speed.low > 1:
        pays = "int8 seems to pay here"
    elif speed.high < 1:
        pays = "int8 does not seem to pay here"
    else:
        pays = "The times do not show whether int8 pays here"
    return f"{pays}: {measured} {where}, {cost}."


def _time(session: Any, batch: npt.NDArray[Any]) -> float:
    name = session.get_inputs()[0].name
    begun = time.perf_counter()
    session.run(None, {name: batch})
    return time.perf_counter() - begun
