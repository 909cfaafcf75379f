"""The interface between the measurement and whatever runs a network.

A backend of your own is a class with the members of `Backend`, named by an entry point of the
group `bench.backends`:

    [project.entry-points."bench.backends"]
    mine = "my_package:MyBackend"

Its `prepare` returns an object with the members of `Prepared`. A backend may have optional members;
without them the defaults below hold.

| optional member | purpose | default |
|---|---|---|
| `int8_target` | what int8 ONNX files are quantised for: cpu or tensorrt | cpu |
| `cuda_memory_formats` | memory formats on a CUDA device | `memory_formats` |
| `slow_to_prepare` | `bench tune` tries it last, and less often | False |
| `computes` | False: no network is run, so no ratio and no FLOP/s is shown | True |
| `profile` | time by layer, for `--layers` (`ProfilingBackend`) | refused |
| `captures` | its working memory lies in a pool of its own, not in torch's | False |
| `prepare_streams` | several batches at once (`StreamingBackend`) | refused |
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, runtime_checkable

from bench.errors import BenchError
from bench.system.memory import is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from bench.measurement.profile.layer_time import LayerProfile

PRECISIONS = ("fp32", "tf32", "bf16", "fp16", "int8")
CONTIGUOUS, CHANNELS_LAST = "contiguous", "channels_last"
MEMORY_FORMATS = (CONTIGUOUS, CHANNELS_LAST)

Boundary = Literal["compute", "copies", "end-to-end"]
BOUNDARIES: tuple[Boundary, ...] = get_args(Boundary)

Needs = Literal["module", "onnx", "engine", "nothing"]


class UnsupportedError(BenchError):
    """The backend cannot run this configuration; the others of a measurement continue."""


class OutOfMemoryError(BenchError):
    """The batch does not fit into memory; the others of a measurement continue."""


def status_of(error: BaseException) -> tuple[str, str]:
    """Return the status that a row gets for an error, and its one-line message."""
    text = " ".join(str(error).split())[:300] or type(error).__name__
    if is_out_of_memory(error):
        return "out_of_memory", text
    return ("unsupported" if isinstance(error, UnsupportedError) else "failed"), text


@dataclass(frozen=True)
class Support:
    """One pair of device and precision that a backend knows.

    Attributes:
        device: cpu, cuda or mps.
        precision: one of `PRECISIONS`.
        missing: why it cannot run on this machine; None if it can.
    """

    device: str
    precision: str
    missing: str | None = None


@dataclass(frozen=True)
class Workload:
    """What a backend prepares.

    Attributes:
        model: the network in evaluation mode on the CPU, a copy that the backend may change; None
            for a file.
        file: an ONNX file for backends whose `needs` is onnx, an engine for engine; else None.
        input_shape: sizes of an image in the network's own order, C×H×W or H×W×C.
        batch_size: number of images that one call takes.
        device: cpu, cuda, cuda:N or mps.
        precision: one of `PRECISIONS`.
        memory_format: contiguous or channels_last.
        threads: number of CPU threads; the backend sets its library's own switch.
        input_type: element type of the images, such as float32 or uint8.
    """

    model: nn.Module | None
    file: Path | None
    input_shape: tuple[int, int, int]
    batch_size: int
    device: str = "cpu"
    precision: str = "fp32"
    memory_format: str = CONTIGUOUS
    threads: int = 1
    input_type: str = "float32"


def arithmetic(integer: int, other: int) -> str:
    """Name the arithmetic of convolutions and products, *integer* of which ran in int8.

    Returns:
        fp32 without any, int8 if they are at least half, else such as `int8 in 1 of 9 layers`.
    """
    if not integer:
        return "fp32"
    return "int8" if integer >= other else f"int8 in {integer} of {integer + other} layers"


@dataclass(frozen=True)
class Executed:
    """What really ran, read back from the library.

    Attributes:
        provider: what computed: an execution provider, or library and kernels.
        precision: the arithmetic that ran, which may differ from the requested one.
        nodes: provider → number of the graph's nodes that it runs; empty if unknown.
        elsewhere: nodes that run on another provider than the requested one.
        compile_seconds: time to compile before the first batch; None without compilation.
        warnings: what a reader of the figure must know.
        details: anything else, as JSON values.
    """

    provider: str
    precision: str
    nodes: dict[str, int] = field(default_factory=dict)
    elsewhere: tuple[str, ...] = ()
    compile_seconds: float | None = None
    warnings: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)


class Prepared(Protocol):
    """A network that is ready to run.

    The measurement decides what is timed (`--boundary`): `infer` alone, or the copies as well.
    """

    def upload(self, images: Tensor) -> Any:
        """Copy a batch from host memory to where the network reads it.

        Args:
            images: N × the workload's `input_shape`, of its `input_type` or, preprocessed, float32;
                on a CUDA device pinned, and with the boundary `end-to-end` already on the device.
        """

    def infer(self, batch: Any) -> Any:
        """Run one batch; may return before the device has finished."""

    def download(self, output: Any) -> Any:
        """Copy the logits, N×classes, to host memory; returns when they are there."""

    def synchronize(self) -> None:
        """Wait until all work that was started is done."""

    def describe(self) -> Executed:
        """Return what really ran; called after the last batch."""


class Backend(Protocol):
    """A way to run networks.

    Attributes:
        name: as `--backend` takes it.
        needs: what it prepares from: a torch module, an ONNX file, an engine, or nothing.
        memory_formats: those of `MEMORY_FORMATS` that it distinguishes.
    """

    name: str
    needs: Needs
    memory_formats: Sequence[str]

    def support(self) -> Sequence[Support]:
        """Return the pairs it knows, with what is missing here; cheap, and never raises."""

    def prepare(self, workload: Workload) -> Prepared:
        """Make a network ready to run on exactly the requested device and precision.

        Raises:
            UnsupportedError: it cannot do that; the message names what is missing.
            OutOfMemoryError: it does not fit.
        """


@runtime_checkable
class StreamingBackend(Backend, Protocol):
    """A `Backend` with the optional member that runs several batches at once (`--streams`)."""

    def prepare_streams(self, workload: Workload, streams: int) -> Sequence[Prepared]:
        """Make a network ready to run *streams* batches at once, on a CPU.

        Args:
            workload: its threads are those of all streams together.
            streams: number of batches in flight.

        Returns:
            One for each stream; each is called from one thread, all at the same time.

        Raises:
            UnsupportedError: as `prepare`.
            OutOfMemoryError: as `prepare`.
        """


def prepare_copies(
    prepare: Callable[[Workload], Prepared], workload: Workload, streams: int
) -> list[Prepared]:
    """Prepare one network per stream, each with an equal part of the threads, rounded down."""
    one = replace(workload, threads=workload.threads // streams)
    copies = [replace(one, model=deepcopy(workload.model)) for _ in range(streams - 1)]
    return [prepare(each) for each in (one, *copies)]


@runtime_checkable
class ProfilingBackend(Backend, Protocol):
    """A `Backend` with the optional member that measures the time of each layer (`--layers`)."""

    def profile(self, prepared: Any, step: Callable[[], Any], runs: int) -> LayerProfile:
        """Profile a network that `prepare` returned; nothing is timed after it.

        Args:
            prepared: what `prepare` returned.
            step: runs one batch as it was timed, copies included where they were timed.
            runs: number of batches to profile.

        Returns:
            Layers in the network's order (`LayerTime`), and kinds of operator with their
            microseconds, both summed over *runs* batches.
        """
