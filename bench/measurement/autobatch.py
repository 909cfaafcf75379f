"""`--batch-size auto`: double the batch as long as images/s rise, each size in a subprocess."""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.measurement.backends import OutOfMemoryError, status_of
from bench.measurement.timing.process_runner import ProcessRunner

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.measurement.configurations import Configuration
    from bench.measurement.timing.runner import Runner

KNEE = 0.03  # smallest gain of images/s for which the batch is doubled
LARGEST = 4096
_SAMPLES = 3


class Probe(NamedTuple):
    """One batch size that was tried; its images/s are None if it did not fit."""

    batch_size: int
    images_per_second: float | None


def find_batch_size(
    configuration: Configuration,
    *,
    timeout: float,
    open_runner: Callable[[Configuration], Runner] | None = None,
) -> tuple[int, list[dict[str, Any]]]:
    """Double the batch until it gains less than 3 %, or no longer fits.

    If a size does not fit, the largest one that does is searched by bisection.

    Args:
        configuration: its batch size is replaced.
        timeout: seconds to wait for one answer of a subprocess.
        open_runner: opens a configuration (default: in a subprocess, which may run out of memory).

    Returns:
        The batch size, and everything that was tried (`Probe` as dictionaries).

    Raises:
        OutOfMemoryError: not even a batch of one fits.
    """
    opened = open_runner or (lambda made: ProcessRunner(made, timeout=timeout))

    def probe(size: int) -> Probe:
        return _probe(opened, replace(configuration, batch_size=size), size)

    tried = [probe(1)]
    if tried[0].images_per_second is None:
        raise OutOfMemoryError("not even a batch of 1 fits")
    best, size = tried[0], 2
    while size <= LARGEST:
        tried.append(probe(size))
        rate = tried[-1].images_per_second
        if rate is None:
            best = _between(best, size, probe, tried)
            break
        if rate < (best.images_per_second or 0) * (1 + KNEE):
            break
        best, size = tried[-1], size * 2
    return best.batch_size, [p._asdict() for p in tried]


def _between(
    best: Probe, too_large: int, probe: Callable[[int], Probe], tried: list[Probe]
) -> Probe:
    """Bisect between a size that fits and one that does not."""
    while too_large - best.batch_size > max(1, best.batch_size // 8):
        middle = (best.batch_size + too_large) // 2
        tried.append(probe(middle))
        rate = tried[-1].images_per_second
        if rate is None:
            too_large = middle
        elif rate > (best.images_per_second or 0):
            best = tried[-1]
        else:
            return best
    return best


def _probe(opened: Callable[[Configuration], Runner], made: Configuration, size: int) -> Probe:
    runner = None
    try:
        runner = opened(made)
        runner.warm_up(1.0)
        return Probe(size, size / statistics.median(runner.block(_SAMPLES)))
    except Exception as error:
        if status_of(error)[0] != "out_of_memory":
            raise
        return Probe(size, None)
    finally:
        if runner is not None:
            runner.close()
