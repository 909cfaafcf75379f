"""`--batch-size auto`: double the batch as long as images/s rise, each size in a subprocess."""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench.measurement.backends import OutOfMemoryError, status_of
from bench.measurement.timing.process_runner import ProcessRunner

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.measurement.configurations import Configuration
    from bench.measurement.timing.runner import Runner

KNEE = 0.03  # smallest gain of images/s for which the batch is doubled
LARGEST = 4096
_SAMPLES = 3


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
        The batch size; and each size that was tried (`batch_size`) with its `images_per_second`,
        None if it did not fit.

    Raises:
        OutOfMemoryError: not even a batch of one fits.
    """
    opened = open_runner or (lambda made: ProcessRunner(made, timeout=timeout))
    tried: dict[int, float | None] = {}

    def rate(size: int) -> float:
        tried[size] = _images_per_second(opened, replace(configuration, batch_size=size))
        return tried[size] or 0.0

    best, most, size = 1, rate(1), 2
    if not most:
        raise OutOfMemoryError("not even a batch of 1 fits")
    while size <= LARGEST and (found := rate(size)) >= most * (1 + KNEE):
        best, most, size = size, found, size * 2
    if size in tried and tried[size] is None:  # the best size lies between the two
        while size - best > max(1, best // 8):
            middle = (best + size) // 2
            found = rate(middle)
            if tried[middle] is None:
                size = middle
            elif found > most:
                best, most = middle, found
            else:
                break
    return best, [{"batch_size": n, "images_per_second": found} for n, found in tried.items()]


def _images_per_second(
    opened: Callable[[Configuration], Runner], made: Configuration
) -> float | None:
    """Measure a few batches; None if they do not fit into memory."""
    runner = None
    try:
        runner = opened(made)
        runner.warm_up(1.0)
        return made.batch_size / statistics.median(runner.block(_SAMPLES))
    except Exception as error:
        if status_of(error)[0] != "out_of_memory":
            raise
        return None
    finally:
        if runner is not None:
            runner.close()
