"""What is measured and compared: every combination that was asked for, as one configuration."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING, Any, Literal, get_args

from bench.errors import BenchError, nearest
from bench.measurement.backends import (
    CONTIGUOUS,
    MEMORY_FORMATS,
    PRECISIONS,
    Workload,
    backend_rows,
    load_backend,
)
from bench.measurement.timing.runner import BOUNDARIES, Boundary, LocalLane

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from bench.measurement.measured_network import MeasuredNetwork

Scenario = Literal["offline", "single-stream", "server"]
AUTO = "auto"


@dataclass(frozen=True)
class Request:
    """What is asked of a measurement, checked before any work begins.

    Attributes:
        backends: names; eager and onnxruntime for networks, onnxruntime for files, without.
        precisions: fp32, or the file's own, without.
        batch_sizes: images a batch, or `auto`: doubled to the knee.
        memory_formats: contiguous or channels_last.
        boundaries: what is inside the timed section: compute, copies, end-to-end.
        scenario: offline (images/s), single-stream (latency of one image after the other) or
            server (highest Poisson rate within `latency_bound_ms`).
        reference: the backend that others are compared with.
        target_width: half-width of the interval, relative; 0.02 is ±2 %.
        max_seconds: for each configuration, after warm-up.
        isolate: each configuration in a process of its own.
        timeout: seconds that an isolated configuration may take for one answer.
        latency_bound_ms: p99 that the server scenario keeps to.
        pin: bind the process to as many cores as it has threads.
        clear_l2: overwrite the GPU's second-level cache before each sample.
        layers: profile each configuration after its samples.
        seed: of the order of blocks.

    Raises:
        BenchError: a value is unknown or out of range.
    """

    backends: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    batch_sizes: tuple[int | str, ...] = ()
    memory_formats: tuple[str, ...] = (CONTIGUOUS,)
    boundaries: tuple[Boundary, ...] = ("compute",)
    scenario: Scenario = "offline"
    reference: str = "eager"
    target_width: float = 0.02
    max_seconds: float = 12.0
    isolate: bool = False
    timeout: float = 600.0
    latency_bound_ms: float | None = None
    pin: bool = False
    clear_l2: bool = False
    layers: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for precision in self.precisions:
            if precision not in PRECISIONS:
                raise BenchError(
                    f"--precision {precision} is unknown{nearest(precision, PRECISIONS)} "
                    f"(this machine has: {', '.join(_precisions_here())})"
                )
        for option, values, known in (
            ("memory-format", self.memory_formats, MEMORY_FORMATS),
            ("boundary", self.boundaries, BOUNDARIES),
            ("scenario", (self.scenario,), get_args(Scenario)),
        ):
            _known(option, values, known)
        for name in (*self.backends, self.reference):
            load_backend(name)
        for size in self.batch_sizes:
            _check_batch(size)
        for option in ("target_width", "max_seconds", "timeout"):
            check_above_zero(f"--{option.replace('_', '-')}", getattr(self, option))
        self._check_scenario()

    def _check_scenario(self) -> None:
        check_above_zero("--latency-bound", self.latency_bound_ms)
        if self.scenario == "server" and self.latency_bound_ms is None:
            raise BenchError("--scenario server needs --latency-bound MS, the p99 to stay below")
        if self.scenario != "offline" and any(size != 1 for size in self.batch_sizes):
            raise BenchError(f"--scenario {self.scenario} runs one image at a time: --batch-size 1")

    @property
    def sizes(self) -> tuple[int | str, ...]:
        """Batch sizes, with the scenario's own where none was asked for."""
        return self.batch_sizes or ((1, 32) if self.scenario == "offline" else (1,))


@dataclass(frozen=True)
class Configuration:
    """One combination; small enough to be sent to another process, which opens it there.

    Attributes:
        target: the network.
        unsupported: why it cannot run on this machine; None if it can.
        file: the ONNX file made of the network, for backends that need one.
        size_label: `auto`, or the batch size as asked for: what ratios are grouped by.
        twin: entered a second time, for the noise floor.
    """

    target: MeasuredNetwork
    backend: str
    precision: str
    memory_format: str
    batch_size: int
    boundary: Boundary
    device: str
    threads: int
    scenario: Scenario = "offline"
    size_label: str = ""
    unsupported: str | None = None
    file: Path | None = None
    file_sha256: str | None = None
    test_accuracy: float | None = None
    twin: bool = False
    clear_l2: bool = False
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """A name that no other configuration of a plan has."""
        parts = [
            self.target.label, self.backend, self.precision, self.memory_format,
            f"batch {self.size_label}", self.boundary,
        ]  # fmt: skip
        return " / ".join(parts) + (" (twin)" if self.twin else "")

    @property
    def group(self) -> str:
        """What it may be compared within: never across networks, batches or boundaries."""
        return f"{self.target.label} / batch {self.size_label} / {self.boundary}"

    def workload(self) -> Workload:
        """Load what the backend prepares."""
        needs = load_backend(self.backend).needs
        return Workload(
            model=self.target.module() if needs == "module" else None,
            file=self.file,
            input_shape=self.target.input_shape,
            batch_size=self.batch_size,
            device=self.device,
            precision=self.precision,
            memory_format=self.memory_format,
            threads=self.threads,
        )

    def open(self) -> LocalLane:
        """Make it ready to run in this process."""
        return LocalLane(
            self.backend,
            self.workload(),
            boundary=self.boundary,
            preprocess=self.target.preprocess() if self.boundary == "end-to-end" else None,
            single=self.scenario != "offline",
            clear_l2=self.clear_l2,
        )


def expand(
    request: Request, targets: Iterable[MeasuredNetwork], *, device: str, threads: int
) -> list[Configuration]:
    """Lay out every combination; those that cannot run here say why.

    Raises:
        BenchError: a file is asked for a batch size that it does not take.
    """
    found = []
    for target in targets:
        combinations = product(
            _backends(request, target),
            request.precisions or (target.file_precision or "fp32",),
            request.memory_formats,
            _sizes(request, target),
            request.boundaries,
        )
        for backend, precision, memory_format, size, boundary in dict.fromkeys(combinations):
            made = Configuration(
                target, backend, precision, memory_format, 0 if size == AUTO else int(size),
                boundary, device, threads, request.scenario, str(size),
                test_accuracy=_accuracy(target, backend, precision), clear_l2=request.clear_l2,
            )  # fmt: skip
            if target.kind in {"onnx", "engine"}:
                made = replace(made, file=target.file, file_sha256=target.file_sha256)
            found.append(replace(made, unsupported=why_not(made)))
    return found


def why_not(configuration: Configuration) -> str | None:
    """Return why a configuration cannot run on this machine; None if it can."""
    made, backend = configuration, load_backend(configuration.backend)
    own = made.target.file_precision
    as_tf32 = (own, made.precision) == ("fp32", "tf32") and backend.needs == "onnx"
    if own is not None and own != made.precision and not as_tf32:
        return f"{made.target.label} is an {own} file"
    if other := _needs_other(made, backend.needs):
        return other
    if made.memory_format not in backend.memory_formats:
        return f"{made.backend} has no {made.memory_format} memory format"
    kind = made.device.partition(":")[0]
    pairs = {(s.device, s.precision): s for s in backend.support()}
    pair = pairs.get((kind, made.precision))
    if pair is None:
        can = ", ".join(sorted(f"{p} on {d}" for (d, p), s in pairs.items() if not s.missing))
        return f"{made.backend} has no {made.precision} on {kind} (here it has {can or 'nothing'})"
    # A file is measured as it is: what its arithmetic became is read back and shown.
    return (
        None
        if own is not None and pair.missing and kind == "cpu" and own == "fp16"
        else (pair.missing)
    )


def _needs_other(made: Configuration, needs: str) -> str | None:
    """Say what a backend runs, if that is not what it was given."""
    if needs == "engine" and made.target.kind != "engine":
        return f"{made.backend} runs .engine files: build one with 'bench export-tensorrt'"
    if made.target.kind == "engine" and needs != "engine":
        return f"{made.backend} does not run engines: use --backend tensorrt"
    if made.target.file_precision is not None and needs == "module":
        return f"{made.backend} runs networks, not files"
    return None


def references(configurations: Sequence[Configuration], wanted: str) -> dict[str, Configuration]:
    """Return each group's reference: *wanted* in fp32 and contiguous, else the group's first."""
    chosen: dict[str, Configuration] = {}
    for made in configurations:
        if made.unsupported is None and made.backend != "null":
            plain = (made.backend, made.precision, made.memory_format)
            if made.group not in chosen or plain == (wanted, "fp32", CONTIGUOUS):
                chosen[made.group] = made
    return chosen


def _backends(request: Request, target: MeasuredNetwork) -> tuple[str, ...]:
    if request.backends:
        return request.backends
    of_file = {"onnx": ("onnxruntime",), "engine": ("tensorrt",)}
    return of_file.get(target.kind, ("eager", "onnxruntime"))


def _sizes(request: Request, target: MeasuredNetwork) -> tuple[int | str, ...]:
    static = target.static_batch
    if static is None:
        return request.sizes
    if not request.batch_sizes:
        return (static,)
    for size in request.batch_sizes:
        if size != static:
            raise BenchError(
                f"--batch-size {size}: {target.label} was made for batches of {static}; use "
                f"--batch-size {static}, or export it without --static-batch"
            )
    return (static,)


def _accuracy(target: MeasuredNetwork, backend: str, precision: str) -> float | None:
    """Accuracy where it is known of exactly this artefact: the run's own, or the file's."""
    same = target.kind in {"onnx", "engine"} or (backend == "eager" and precision == "fp32")
    return target.test_accuracy if same else None


def _known(option: str, values: Iterable[str], known: Sequence[str]) -> None:
    for value in values:
        if value not in known:
            raise BenchError(
                f"--{option} {value} is unknown{nearest(value, known)} (known: {', '.join(known)})"
            )


def _precisions_here() -> list[str]:
    """Precisions that some backend computes on this machine."""
    runs = {r["precision"] for r in backend_rows() if r["runs_here"] and r["name"] != "null"}
    return [precision for precision in PRECISIONS if precision in runs]


def check_above_zero(option: str, value: float | None) -> None:
    """Refuse what is no time or width.

    Raises:
        BenchError: it is 0 or less, infinite, or not a number.
    """
    if value is not None and not 0 < value < math.inf:
        raise BenchError(f"{option} {value:g}: it must be above 0, and finite")


def _check_batch(size: int | str) -> None:
    if size != AUTO and (not isinstance(size, int) or size < 1):
        raise BenchError(f"--batch-size {size}: it must be at least 1, or auto")
