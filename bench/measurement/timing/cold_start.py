"""`--cold-start`: seconds and memory of import, load and first inference, over fresh processes."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file

from bench.errors import BenchError
from bench.measurement.backends.eager import DTYPES
from bench.measurement.backends.openvino import settings
from bench.measurement.timing.cold_process import PHASES, PROGRAMS
from bench.system.intervals import process_interval
from bench.system.memory import describe_exit, out_of_memory_kills
from bench.training.weights import stored

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.measurement.configurations import Configuration
    from bench.training.run import OnEvent


PROCESSES = 10
_PROGRAM = "from bench.measurement.timing.cold_process import main; main()"
_MIB = 2**20


@dataclass
class _Cold:
    """A configuration and what its processes found.

    Attributes:
        made: the configuration.
        job: what each process is to do.
        cached: whether a process has brought the files into the page cache.
        found: phases of each process that counts.
        failures: why processes failed.
        error: why there are no figures; None if there are.
    """

    made: Configuration
    job: dict[str, Any] = field(default_factory=dict)
    cached: bool = False
    found: list[list[dict[str, Any]]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    error: str | None = None


def measure_cold_starts(
    configurations: Sequence[Configuration],
    folder: Path,
    *,
    processes: int = PROCESSES,
    timeout: float = 600.0,
    seed: int = 0,
    on_event: OnEvent = lambda _event: None,
) -> list[dict[str, Any]]:
    """Start a fresh process for each configuration, in random order, and so on.

    The first complete process of each does not count: it brings the files into the page cache, so
    that the others find them there. A process that fails is left out; after the second, the
    configuration is given up.

    Args:
        configurations: of one stream, on a CPU; those of equal files that differ in what is timed
            are measured once.
        folder: for the weights that eager PyTorch reads.
        processes: number of processes that count, of each configuration.
        timeout: seconds that one may take.
        seed: of the order.
        on_event: called with `cold_start`.

    Returns:
        Rows of the `cold_starts` table: one per phase, or one with the reason where there is none.
    """
    distinct = {_key(made): made for made in reversed(configurations) if made.streams == 1}
    colds = [_Cold(made) for made in reversed(distinct.values())]
    for number, cold in enumerate(colds):
        if cold.made.backend not in PROGRAMS or cold.made.device != "cpu":
            cold.error = f"the cold start of {cold.made.backend} is not measured"
            continue
        try:
            cold.job = _job(cold.made, folder / f"cold-{number}.safetensors")
        except Exception as error:  # a network's own code may raise anything
            cold.error = str(error)
    order = random.Random(seed)  # noqa: S311 - nothing secret
    for number in range(-1, processes):
        able = [cold for cold in colds if cold.error is None]
        order.shuffle(able)
        if number >= 0:
            on_event({"event": "cold_start", "number": number + 1, "of": processes})
        for cold in able:
            _measure(cold, timeout)
    return [row for cold in colds for row in _rows(cold, processes)]


def _key(made: Configuration) -> tuple[Any, ...]:
    ran = (made.backend, made.precision, made.memory_format)
    return (made.target.label, *ran, made.batch_size, made.threads)


def _job(made: Configuration, weights: Path) -> dict[str, Any]:
    job = {
        "backend": made.backend,
        "threads": made.threads,
        "shape": [made.batch_size, *made.target.input_shape],
        "input_type": made.target.input_type,
        "file": str(made.file),
    }
    if made.backend == "openvino":
        job["settings"] = settings(made.workload(), streams=1)
    if made.backend == "eager":
        source = made.target.load()
        options = dict(source.options)
        if source.trained is not None:
            options |= {"num_classes": len(source.classes), "in_channels": source.input_shape[0]}
        save_file(stored(source.model.state_dict()), weights)
        dtype = str(DTYPES[made.precision]).removeprefix("torch.")
        job |= {"model": source.model_name, "options": options, "weights": str(weights)}
        job |= {"dtype": dtype, "memory_format": made.memory_format}
    return job


def _measure(cold: _Cold, timeout: float) -> None:
    """Run one process of a configuration, and add what it found, or why it failed."""
    try:
        found = _run(cold.job, timeout)
    except BenchError as error:
        cold.failures.append(str(error))
        if len(cold.failures) > 1:
            cold.error = str(error)
        return
    if cold.cached:
        cold.found.append(found)
    cold.cached = True


def _run(job: dict[str, Any], timeout: float) -> list[dict[str, Any]]:
    """Return the phases of one process.

    Raises:
        BenchError: it failed, or took too long.
    """
    command = [sys.executable, "-P", "-c", _PROGRAM]
    kills = out_of_memory_kills()
    try:
        done = subprocess.run(  # noqa: S603
            command, input=json.dumps(job), capture_output=True, text=True,
            timeout=timeout, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise BenchError(f"it did not end within {timeout:g} s (--timeout)") from None
    except OSError as error:
        raise BenchError(f"its process cannot be started: {error.strerror}") from None
    if done.returncode == 0:
        try:
            found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
        except (ValueError, IndexError):
            raise BenchError("its process ended before it had measured") from None
        return found
    ended = describe_exit(done.returncode, kills, "its process")[1]
    lines = done.stderr.strip().splitlines() if done.returncode > 0 else []
    raise BenchError(lines[-1] if lines else ended)


def _rows(cold: _Cold, processes: int) -> list[dict[str, Any]]:
    made = cold.made
    common = {
        "model": made.target.model or made.target.label,
        "options": " ".join(f"{k}={v}" for k, v in made.target.options.items()),
        "run": made.target.run,
        "file_sha256": made.file_sha256,
        "backend": made.backend,
        "precision": made.precision,
        "memory_format": made.memory_format,
        "batch_size": made.batch_size,
        "threads": made.threads,
        "processes": len(cold.found),
    }
    if cold.error is not None or not cold.found:
        status = "failed" if cold.job else "unsupported"
        error = cold.error or cold.failures[0]
        return [{**common, "phase": None, "status": status, "error": error}]
    if cold.failures:
        complete = f"{len(cold.found)} of {processes} processes complete"
        common["warnings"] = f"{made.backend} {made.precision}: {complete}: {cold.failures[0]}"
    rows = []
    for number, phase in enumerate(PHASES):
        row: dict[str, Any] = {**common, "phase": phase, "status": "complete", "error": None}
        for name, key, unit in (("seconds", "seconds", 1), ("memory_mib", "bytes", _MIB)):
            interval = process_interval([one[number][key] / unit for one in cold.found])
            row[name] = interval.median
            ends = (interval.low, interval.high) if interval.confident else (None, None)
            row[f"{name}_low"], row[f"{name}_high"] = ends
        rows.append(row)
    return rows
