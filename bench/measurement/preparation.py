"""What a measurement needs before anything is opened: files, batch sizes, device and cores."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil

from bench.errors import BenchError
from bench.export.files import save
from bench.export.graph import trace
from bench.export.pipeline import Exporter
from bench.export.settings import RANDOM, Settings
from bench.measurement.autobatch import find_batch_size
from bench.measurement.backends import load_backend
from bench.measurement.configurations import AUTO, Configuration, Request
from bench.store.exports import Exports
from bench.store.files import sha256_of
from bench.system.devices import (
    by_core,
    check_count,
    default_threads,
    physical_cores,
    resolve_device,
    usable_processors,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.measurement.measured_network import MeasuredNetwork
    from bench.measurement.timing.trial import Trial
    from bench.training.run import OnEvent


@dataclass(frozen=True)
class Context:
    """Where a measurement runs.

    Attributes:
        results: the results folder.
        device: cpu, cuda:N or mps.
        threads: number of CPU threads of every backend.
        on_event: called with the progress.
    """

    results: Path
    device: str
    threads: int
    on_event: OnEvent = lambda _event: None


def make_context(
    results: str | Path,
    device: str = "auto",
    threads: int | None = None,
    on_event: OnEvent = lambda _event: None,
) -> Context:
    """Resolve device and threads (default: `bench.system.devices.default_threads`).

    Raises:
        BenchError: there is no such device, or there are fewer cores.
    """
    check_count("--threads", threads, physical_cores(), "core")
    threads = threads or default_threads()
    return Context(Path(results), str(resolve_device(device)), threads, on_event)


class NetworkFile(NamedTuple):
    """A file made of a network.

    Its test accuracy is None if it was not tested, and `calibration` None if it is not in int8.
    """

    path: Path
    sha256: str
    test_accuracy: float | None = None
    calibration: str | None = None


def make_file(
    target: MeasuredNetwork,
    precision: str,
    folder: Path,
    *,
    threads: int,
    int8_target: str = "cpu",
    dataset: str | None = None,
) -> NetworkFile:
    """Export a network for a backend that needs an ONNX file.

    A model given by name is only traced in fp32, into *folder*: its weights are random, so there
    is nothing to verify. Everything else goes through the pipeline of `bench export-onnx` into the
    results folder, with its verification and the accuracy of that file.

    Args:
        target: the network.
        precision: fp32, fp16 or int8.
        folder: for files that are not needed afterwards.
        threads: number of CPU threads.
        int8_target: as `bench export-onnx --target` takes it.
        dataset: as `bench export-onnx --dataset` takes it. A model given by name is calibrated on
            random images by default: its weights are random, too, and its row says so.

    Raises:
        BenchError: it cannot be exported so.
    """
    source = target.load()
    if target.kind == "model" and precision == "fp32":
        path = folder / f"{source.model_name.replace(':', '-')}-{precision}.onnx"
        save(trace(source).proto, path)
        return NetworkFile(path, sha256_of(path))
    exports = Exports(folder if target.kind == "model" else target.results)
    chosen: dict[str, Any] = {"precision": precision, "target": int8_target}
    if precision == "int8":
        chosen["dataset"] = dataset or (RANDOM if target.kind == "model" else None)
    record = Exporter(exports, Settings(**chosen), threads).export(source)
    row = record.row
    if row["status"] != "complete":
        raise BenchError(f"the {precision} export was rejected: {row['error']}")
    return NetworkFile(
        exports.file(record), record.export, row["test_accuracy"], row.get("calibration")
    )


def with_files(
    configurations: Sequence[Configuration],
    folder: Path,
    context: Context,
    dataset: str | None = None,
) -> Iterator[Configuration]:
    """Yield the configurations, with an ONNX file for those that need one.

    Each file is made once for all configurations of a network and precision. For *dataset*, see
    `make_file`.
    """
    made: dict[tuple[str, str, str], Any] = {}
    for one in configurations:
        if one.unsupported or one.file or load_backend(one.backend).needs != "onnx":
            yield one
            continue
        # TF32 is a way to compute an fp32 file.
        precision = "fp32" if one.precision == "tf32" else one.precision
        int8_target = getattr(load_backend(one.backend), "int8_target", "cpu")
        key = (one.target.label, precision, int8_target if precision == "int8" else "")
        if key not in made:
            context.on_event({"event": "export", "what": f"{one.target.label} {precision}"})
            try:
                made[key] = make_file(
                    one.target, precision, folder, threads=context.threads,
                    int8_target=int8_target, dataset=dataset,
                )  # fmt: skip
            except BenchError as error:
                made[key] = error
        found = made[key]
        if isinstance(found, BenchError):
            yield replace(one, unsupported=str(found))
        else:
            yield replace(
                one, file=found.path, file_sha256=found.sha256, test_accuracy=found.test_accuracy,
                calibration=found.calibration,
            )  # fmt: skip


def find_batch_sizes(trials: Sequence[Trial], request: Request, context: Context) -> None:
    """Set the batch size of each trial whose size is `auto`."""
    for trial in trials:
        made = trial.configuration
        if trial.status == "complete" and made.size_label == AUTO:
            context.on_event({"event": "batch", "what": made.name})
            with trial.recording_failure():
                size, tried = find_batch_size(made, timeout=request.timeout)
                trial.configuration = replace(made, batch_size=size, details={"tried": tried})


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Bind this process, and those it starts, to as many cores as it has threads.

    Where there are fewer cores, two threads share some of them.

    Raises:
        BenchError: the system cannot do that, or the process may use fewer cores.
    """
    before = usable_processors()
    if before is None:
        raise BenchError("--pin: this system has no processor affinity; leave it out")
    if len(before) < threads:
        raise BenchError(f"--pin: {threads} threads, but only {len(before)} cores are allowed")
    _bind(set(by_core(before)[:threads]))
    try:
        yield
    finally:
        _bind(before)


def _bind(cores: set[int]) -> None:
    """Bind every existing thread; those started later inherit it."""
    if sys.platform == "linux":
        for thread in psutil.Process().threads():
            os.sched_setaffinity(thread.id, cores)
