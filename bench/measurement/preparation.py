"""What has to be there before runners are opened: files, batch sizes, a place to run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.measurement.autobatch import find_batch_size
from bench.measurement.backends import load_backend
from bench.measurement.configurations import AUTO, Request
from bench.measurement.onnx_file import make_file
from bench.measurement.rows import Outcome
from bench.measurement.timing.sampling import status_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.measurement.configurations import Configuration

OnEvent = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Place:
    """Where and with what a measurement runs.

    Attributes:
        results: the results folder.
        device: cpu, cuda, cuda:N or mps, as resolved.
        threads: CPU threads of every backend.
        on_event: told of the progress.
    """

    results: Path
    device: str
    threads: int
    on_event: OnEvent = lambda _event: None


def with_files(
    configurations: Sequence[Configuration], folder: Path, place: Place
) -> Iterator[Configuration]:
    """Give those that need an ONNX file one, made once for a network and precision."""
    made: dict[tuple[str, str, str], Any] = {}
    for one in configurations:
        if one.unsupported or one.file or load_backend(one.backend).needs != "onnx":
            yield one
            continue
        # TF32 is a way to compute with an fp32 file.
        precision = "fp32" if one.precision == "tf32" else one.precision
        quantised_for = getattr(load_backend(one.backend), "int8_target", "cpu")
        key = (one.target.label, precision, quantised_for if precision == "int8" else "")
        if key not in made:
            place.on_event({"event": "export", "what": f"{one.target.label} {precision}"})
            try:
                made[key] = make_file(
                    one.target, precision, folder, threads=place.threads, int8_target=quantised_for
                )
            except BenchError as error:
                made[key] = error
        found = made[key]
        if isinstance(found, BenchError):
            yield replace(one, unsupported=str(found))
        else:
            yield replace(
                one, file=found.path, file_sha256=found.sha256, test_accuracy=found.test_accuracy
            )


def with_batch_sizes(outcomes: Sequence[Outcome], request: Request, place: Place) -> list[Outcome]:
    """Find the batch size of those that are to find their own."""
    found = []
    for outcome in outcomes:
        made = outcome.configuration
        if made.unsupported is None and made.size_label == AUTO:
            place.on_event({"event": "batch", "what": made.name})
            try:
                size, tried = find_batch_size(made, timeout=request.timeout)
                outcome = Outcome(replace(made, batch_size=size, details={"tried": tried}))  # noqa: PLW2901
            except Exception as error:  # its row says so, and the others go on
                outcome.status, outcome.error = status_of(error)
        found.append(outcome)
    return found


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Bind this process, and those it starts, to as many cores as it has threads.

    Raises:
        BenchError: this system cannot, or fewer cores are allowed.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise BenchError("--pin: this system has no processor affinity; leave it out")
    before = os.sched_getaffinity(0)
    if len(before) < threads:
        raise BenchError(f"--pin: {threads} threads, but only {len(before)} cores are allowed")
    _bind(set(sorted(before)[:threads]))
    try:
        yield
    finally:
        _bind(before)


def _bind(cores: set[int]) -> None:
    """Bind every thread there is; those started later inherit it."""
    folder = Path("/proc/self/task")
    for thread in [int(t.name) for t in folder.iterdir()] if folder.is_dir() else [0]:
        os.sched_setaffinity(thread, cores)
