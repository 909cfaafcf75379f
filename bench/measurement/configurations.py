"""Request and plan: what is requested, and every combination of it as one configuration."""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING, Any, Literal, get_args

from bench.errors import BenchError, check_known, nearest
from bench.measurement.backends import (
    BOUNDARIES,
    CONTIGUOUS,
    MEMORY_FORMATS,
    PRECISIONS,
    Boundary,
    ProfilingBackend,
    StreamingBackend,
    Workload,
    backend_names,
    load_backend,
    loaded_backends,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from bench.measurement.measured_network import MeasuredNetwork
    from bench.targets.find import InputSize

Scenario = Literal["offline", "single-stream", "server"]
AUTO = "auto"
MOST_PROCESSES = 100
BASELINE = "eager"  # default PyTorch, the default reference


@dataclass(frozen=True)
class Request:
    """What a measurement is to do, checked before any work begins.

    Attributes:
        backends: names (default: eager and onnxruntime for networks, onnxruntime for ONNX files,
            tensorrt for engines).
        precisions: of `PRECISIONS` (default: fp32, or the file's own).
        batch_sizes: images per batch, or `auto`: doubled as long as images/s rise.
        memory_formats: contiguous or channels_last.
        boundaries: what is inside the timed section: compute, copies, end-to-end.
        streams: numbers of batches in flight at once, each on an equal part of the threads.
        scenario: offline (images/s), single-stream (latency of one image after the other) or
            server (highest Poisson rate within `latency_bound_ms`).
        reference: the backend that others are compared with, for each network; or one of the
            networks (as it was named), with which the others are compared on the same backend.
        target_width: relative half-width of the interval; 0.02 is ±2 %.
        max_seconds: for each configuration, after warm-up; in the server scenario, in each process.
        processes: number of fresh processes that each measure everything once; `auto`: 6, 10, 16
            or 24, until the intervals are narrow enough; 1: in this process, for a quick look,
            without any claim.
        isolate: run each configuration in a subprocess.
        timeout: seconds that an isolated configuration may take for one answer.
        latency_bound_ms: upper bound of p99 in the server scenario.
        pin: bind the process to as many cores as it has threads.
        clear_l2: overwrite the GPU's second-level cache before each sample.
        layers: profile each configuration after its samples.
        bounded: time each batch alone, and take enough samples to bound p99.
        cold_start: measure import, load and first inference in fresh processes, after the samples.
        options: options of the models given by name.
        input_size: side, or height and width, in pixels, for models given by name and for `.onnx`
            files that take any size.
        dataset: images to calibrate int8 with, or `random` (default: a run's own, and random ones
            for a model given by name).
        seed: of the random orders, and of the memory that a process allocates before it measures
            (default: another one for each measurement, which its record keeps).

    Raises:
        BenchError: a value is unknown or out of range.
    """

    backends: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    batch_sizes: tuple[int | str, ...] = ()
    memory_formats: tuple[str, ...] = (CONTIGUOUS,)
    boundaries: tuple[Boundary, ...] = ("compute",)
    streams: tuple[int, ...] = (1,)
    scenario: Scenario = "offline"
    reference: str = BASELINE
    target_width: float = 0.02
    max_seconds: float = 12.0
    processes: int | str = AUTO
    isolate: bool = False
    timeout: float = 600.0
    latency_bound_ms: float | None = None
    pin: bool = False
    clear_l2: bool = False
    layers: bool = False
    bounded: bool = False
    cold_start: bool = False
    options: dict[str, Any] | None = None
    input_size: InputSize | None = None
    dataset: str | None = None
    seed: int = field(default_factory=lambda: secrets.randbits(31))

    def __post_init__(self) -> None:
        for precision in self.precisions:
            if precision not in PRECISIONS:
                raise BenchError(
                    f"--precision {precision} is unknown{nearest(precision, PRECISIONS)} "
                    f"(this machine has: {', '.join(_precisions_here())})"
                )
        for memory_format in self.memory_formats:
            check_known("--memory-format", memory_format, MEMORY_FORMATS)
        for boundary in self.boundaries:
            check_known("--boundary", boundary, BOUNDARIES)
        check_known("--scenario", self.scenario, get_args(Scenario))
        for name in self.backends:
            load_backend(name)
        for size in self.batch_sizes:
            if size != AUTO and (not isinstance(size, int) or size < 1):
                raise BenchError(f"--batch-size {size}: it must be at least 1, or auto")
        if self.processes != AUTO and (
            not isinstance(self.processes, int) or not 1 <= self.processes <= MOST_PROCESSES
        ):
            raise BenchError(
                f"--processes {self.processes}: it must be 1 to {MOST_PROCESSES}, or auto"
            )
        for option in ("target_width", "max_seconds", "timeout"):
            check_above_zero(f"--{option.replace('_', '-')}", getattr(self, option))
        self._check_scenario()
        self._check_profiled()

    def _check_profiled(self) -> None:
        """Refuse --layers where nothing can be profiled; of several, the others say so."""
        if not self.layers:
            return
        if 1 not in self.streams:
            raise BenchError("--layers: only --streams 1 is profiled")
        able = [n for n, b in loaded_backends().items() if isinstance(b, ProfilingBackend)]
        if self.backends and not set(able) & set(self.backends):
            raise BenchError(
                f"--layers: {', '.join(self.backends)} cannot be profiled by layer "
                f"(backends that can: {', '.join(able)})"
            )

    def _check_scenario(self) -> None:
        for count in self.streams:
            if count < 1:
                raise BenchError(f"--streams {count}: it must be at least 1")
        check_above_zero("--max-latency-ms", self.latency_bound_ms)
        if self.scenario == "server" and self.latency_bound_ms is None:
            raise BenchError("--scenario server needs --max-latency-ms MS, the p99 to stay below")
        if self.scenario != "server" and self.latency_bound_ms is not None:
            raise BenchError(
                f"--max-latency-ms {self.latency_bound_ms:g} goes with --scenario server; leave it "
                "out, or bound p99 with bench tune"
            )
        if self.scenario != "offline" and any(size != 1 for size in self.batch_sizes):
            raise BenchError(f"--scenario {self.scenario} runs one image at a time: --batch-size 1")
        if self.scenario == "single-stream" and set(self.streams) != {1}:
            raise BenchError("--scenario single-stream has one image in flight: --streams 1")

    @property
    def sizes(self) -> tuple[int | str, ...]:
        """The batch sizes, or the scenario's default."""
        return self.batch_sizes or ((1, 32) if self.scenario == "offline" else (1,))


@dataclass(frozen=True)
class Configuration:
    """One combination of a request: small, immutable, and sent to other processes as it is.

    Attributes:
        target: the network.
        backend: name of the backend.
        precision: the requested one; what ran is read back later.
        memory_format: contiguous or channels_last.
        batch_size: images per batch; 0 until `auto` is resolved.
        boundary: what is inside the timed section.
        device: cpu, cuda:N or mps.
        threads: number of CPU threads of all streams together.
        streams: number of batches in flight at once.
        scenario: offline, single-stream or server.
        latency_bound_ms: upper bound of p99 in the server scenario.
        size_label: `auto`, or the batch size as requested: ratios are grouped by it.
        unsupported: why it cannot run on this machine; None if it can.
        file: the ONNX file or engine, for backends that need one.
        file_sha256: of its content.
        test_accuracy: recorded in training, or by ONNX Runtime with the export; None if unknown.
        calibration: images that its int8 ranges come from, as in the column.
        twin: whether it is a reference entered a second time, for the noise floor.
        clear_l2: overwrite a GPU's second-level cache before each sample.
        across: whether it is compared with another network, not with another backend.
        alone: time each batch alone, for the percentiles of its time.
        bounded: take enough samples to bound its p99.
        mixed_threads: whether others of the measurement run with another number of threads.
        details: what else the record shall hold.
    """

    target: MeasuredNetwork
    backend: str
    precision: str = "fp32"
    memory_format: str = CONTIGUOUS
    batch_size: int = 1
    boundary: Boundary = "compute"
    device: str = "cpu"
    threads: int = 1
    streams: int = 1
    scenario: Scenario = "offline"
    latency_bound_ms: float | None = None
    size_label: str = ""
    unsupported: str | None = None
    file: Path | None = None
    file_sha256: str | None = None
    test_accuracy: float | None = None
    calibration: str | None = None
    twin: bool = False
    clear_l2: bool = False
    across: bool = False
    alone: bool = False
    bounded: bool = False
    mixed_threads: bool = False
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """A name that no other configuration of a measurement has."""
        network, batch = self.target.label, f"batch {self.size_label}"
        parts = [network, self.backend, self.precision, self.memory_format, batch, self.boundary]
        if self.mixed_threads:
            parts.append(f"{self.threads} threads")
        parts += [f"{self.streams} streams"] if self.streams > 1 else []
        return " / ".join(parts) + (" (twin)" if self.twin else "")

    @property
    def group(self) -> str:
        """Configurations are compared within a group: equal network, batch and boundary.

        Networks are compared with each other on one backend with one number of streams.
        """
        if self.across:
            parts = [self.backend, self.memory_format, self.size_label, self.boundary]
            parts += [f"{self.streams} streams"] if self.streams > 1 else []
            return " / ".join(parts)
        return f"{self.target.label} / batch {self.size_label} / {self.boundary}"

    @property
    def computes(self) -> bool:
        """Whether its backend runs a network at all, so that its speed can be compared."""
        return bool(getattr(load_backend(self.backend), "computes", True))

    def workload(self) -> Workload:
        """Load the network for the backend to prepare."""
        needs = load_backend(self.backend).needs
        return Workload(
            model=self.target.load().model if needs == "module" else None,
            file=self.file,
            input_shape=self.target.input_shape,
            batch_size=self.batch_size,
            device=self.device,
            precision=self.precision,
            memory_format=self.memory_format,
            threads=self.threads,
            input_type=self.target.input_type,
        )


def expand(
    request: Request, targets: Iterable[MeasuredNetwork], *, device: str, threads: int
) -> list[Configuration]:
    """Return every combination, with the reason for those that cannot run here.

    Raises:
        BenchError: a file was made for another batch size than is requested or the scenario takes,
            the reference is unknown, or an option would have no effect.
    """
    targets, found = list(targets), []
    if request.clear_l2 and not device.startswith("cuda"):
        raise BenchError(f"--clear-l2 is for a GPU, not for {device}: leave it out")
    if request.dataset is not None:
        _check_dataset(request, targets)
    across = _is_across(request.reference, targets)
    for target in targets:
        combinations = product(
            _backends(request, target),
            request.precisions or (target.file_precision or "fp32",),
            request.memory_formats,
            _sizes(request, target),
            request.boundaries,
            request.streams,
        )
        for backend, precision, memory_format, size, boundary, streams in dict.fromkeys(
            combinations
        ):
            made = Configuration(
                target=target,
                backend=backend,
                precision=precision,
                memory_format=memory_format,
                batch_size=0 if size == AUTO else int(size),
                boundary=boundary,
                device=device,
                threads=threads,
                streams=streams,
                scenario=request.scenario,
                latency_bound_ms=request.latency_bound_ms if request.scenario == "server" else None,
                size_label=str(size),
                test_accuracy=_accuracy(target, backend, precision),
                clear_l2=request.clear_l2,
                across=across,
                file=target.file,
                file_sha256=target.file_sha256,
                calibration=target.calibration,
            )
            found.append(replace(made, unsupported=why_not(made)))
    return found


def _check_dataset(request: Request, targets: Sequence[MeasuredNetwork]) -> None:
    """Refuse images to calibrate with where nothing is calibrated."""
    if "int8" not in request.precisions:
        raise BenchError(f"--dataset {request.dataset} calibrates int8: add --precision int8")
    if all(target.file is not None for target in targets):
        raise BenchError(
            f"--dataset {request.dataset} calibrates networks, and files are measured as they are: "
            "leave it out"
        )


def why_not(configuration: Configuration) -> str | None:
    """Return why a configuration cannot run on this machine; None if it can."""
    made, backend = configuration, load_backend(configuration.backend)
    own = made.target.file_precision
    as_tf32 = (own, made.precision) == ("fp32", "tf32") and backend.needs == "onnx"
    if own is not None and own != made.precision and not as_tf32:
        convert = made.precision == "int8" and made.target.kind == "onnx"
        how = f": quantise it with 'bench export-onnx {made.target.file} --precision int8'"
        return f"{made.target.label} is an {own} file{how if convert else ''}"
    if other := _needs_other(made, backend.needs):
        return other
    kind = made.device.partition(":")[0]
    formats = backend.memory_formats
    if kind == "cuda":
        formats = getattr(backend, "cuda_memory_formats", formats)
    if made.memory_format not in formats:
        return f"{made.backend} has no {made.memory_format} memory format"
    if made.streams > 1 and (refused := _no_streams(made, kind)):
        return f"--streams {made.streams}: {refused}"
    pairs = {(s.device, s.precision): s for s in backend.support()}
    pair = pairs.get((kind, made.precision))
    if pair is None:
        can = sorted(f"{p} on {d}" for (d, p), s in pairs.items() if not s.missing)
        fix = ": --device cpu" if f"{made.precision} on cpu" in can else ""
        return (
            f"{made.backend} has no {made.precision} on {kind}{fix} "
            f"(here it has {', '.join(can) or 'nothing'})"
        )
    # An fp16 file is measured as it is: what its arithmetic became is read back and shown.
    return None if own == "fp16" and kind == "cpu" else pair.missing


def _no_streams(made: Configuration, device: str) -> str | None:
    """Return why a configuration cannot have several batches in flight; None if it can."""
    if device != "cpu":
        return "several batches in flight are measured on a CPU only"
    if made.threads < made.streams:
        return f"each needs a thread, and there are {made.threads} (--threads)"
    if not isinstance(load_backend(made.backend), StreamingBackend):
        return f"{made.backend} runs one batch at a time"
    return None


def _needs_other(made: Configuration, needs: str) -> str | None:
    """Return what a backend runs, if that is not what it was given."""
    if needs == "engine" and made.target.kind != "engine":
        return f"{made.backend} runs .engine files: build one with 'bench export-tensorrt'"
    if made.target.kind == "engine" and needs != "engine":
        return f"{made.backend} does not run engines: use --backend tensorrt"
    if made.target.file_precision is not None and needs == "module":
        return f"{made.backend} runs networks, not files"
    return None


def references(configurations: Sequence[Configuration], wanted: str) -> dict[str, Configuration]:
    """Return each group's reference.

    It is the backend *wanted* in fp32, contiguous and with one stream, else the group's first; or
    the network *wanted*, in fp32 if it was measured so.
    """
    chosen: dict[str, Configuration] = {}
    for made in configurations:
        if made.unsupported is not None or not made.computes:
            continue
        if made.across:
            first = made.group not in chosen
            best = made.target.is_called(wanted) and (first or made.precision == "fp32")
        else:
            plain = (made.backend, made.precision, made.memory_format, made.streams)
            best = made.group not in chosen or plain == (wanted, "fp32", CONTIGUOUS, 1)
        if best:
            chosen[made.group] = made
    return chosen


def _is_across(reference: str, targets: Sequence[MeasuredNetwork]) -> bool:
    """Return whether the reference is a network; False for a backend.

    Raises:
        BenchError: it is neither.
    """
    if reference in backend_names():
        return False
    networks = [target.label for target in targets]
    if any(target.is_called(reference) for target in targets):
        return True
    raise BenchError(
        f"--reference {reference} is unknown{nearest(reference, [*backend_names(), *networks])}: "
        f"give a backend ({', '.join(backend_names())}) or one of the measured networks "
        f"({', '.join(networks)})"
    )


def _backends(request: Request, target: MeasuredNetwork) -> tuple[str, ...]:
    if request.backends:
        return request.backends
    of_file = {"onnx": ("onnxruntime",), "engine": ("tensorrt",)}
    return of_file.get(target.kind, (BASELINE, "onnxruntime"))


def _sizes(request: Request, target: MeasuredNetwork) -> tuple[int | str, ...]:
    static = target.static_batch
    if static is None:
        return request.sizes
    if static != 1 and request.scenario != "offline":
        raise BenchError(
            f"--scenario {request.scenario} runs one image at a time, and {target.label} was made "
            f"for batches of {static}: use --scenario offline, or export it for batches of any size"
        )
    if not request.batch_sizes:
        return (static,)
    for size in request.batch_sizes:
        if size != static:
            raise BenchError(
                f"--batch-size {size}: {target.label} was made for batches of {static}; use "
                f"--batch-size {static}, or export it for batches of any size"
            )
    return (static,)


def _accuracy(target: MeasuredNetwork, backend: str, precision: str) -> float | None:
    """Return the accuracy if it is known of exactly this network or file."""
    same = target.kind in {"onnx", "engine"} or (backend, precision) == (BASELINE, "fp32")
    return target.test_accuracy if same else None


def _precisions_here() -> list[str]:
    """Return the precisions that some backend computes on this machine."""
    backends = [b for b in loaded_backends().values() if getattr(b, "computes", True)]
    pairs = [pair for backend in backends for pair in backend.support()]
    here = {pair.precision for pair in pairs if pair.missing is None}
    return [precision for precision in PRECISIONS if precision in here]


def check_above_zero(option: str, value: float | None) -> None:
    """Raise a BenchError if a time or a width is 0 or less, infinite, or not a number."""
    if value is not None and not 0 < value < math.inf:
        raise BenchError(f"{option} {value:g}: it must be above 0, and finite")
