"""What a backend is: the one interface between the harness and whatever runs a network.

A backend of your own is a class with these members, named by an entry point of the group
`bench.backends`:

    [project.entry-points."bench.backends"]
    mine = "my_package:MyBackend"
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor, nn

PRECISIONS = ("fp32", "tf32", "bf16", "fp16", "int8")
CONTIGUOUS, CHANNELS_LAST = "contiguous", "channels_last"
MEMORY_FORMATS = (CONTIGUOUS, CHANNELS_LAST)

Needs = Literal["module", "onnx", "engine", "nothing"]


class UnsupportedError(BenchError):
    """The backend cannot do this; in a sweep that is a row, and the others go on."""


class OutOfMemoryError(BenchError):
    """The batch does not fit; in a sweep that is a row, and the others go on."""


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
        model: the network in evaluation mode on the CPU, the backend's own copy to change; None
            for a file.
        file: an ONNX file, for backends whose `needs` is onnx; an engine likewise.
        input_shape: channels, height, width of an image.
        batch_size: images that one call takes.
        device: cpu, cuda, cuda:N or mps.
        precision: one of `PRECISIONS`.
        memory_format: contiguous or channels_last.
        threads: CPU threads to compute with; the backend sets its library's own switch.
    """

    model: nn.Module | None
    file: Path | None
    input_shape: tuple[int, int, int]
    batch_size: int
    device: str = "cpu"
    precision: str = "fp32"
    memory_format: str = CONTIGUOUS
    threads: int = 1


@dataclass(frozen=True)
class Executed:
    """What really ran, read back from the library.

    Attributes:
        provider: what computed: an execution provider, or library and kernels.
        precision: the arithmetic that ran, which may not be the one asked for.
        nodes: provider → number of the graph's nodes that it runs; empty where unknown.
        elsewhere: nodes that run on another provider than the one asked for.
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

    The harness decides what is timed (`--boundary`): `infer` alone, or the copies as well.
    """

    def upload(self, images: Tensor) -> Any:
        """Bring float32 images N×C×H×W from host memory to where the network reads them."""

    def infer(self, batch: Any) -> Any:
        """Run one batch; may return before the device has finished."""

    def download(self, output: Any) -> Any:
        """Bring the logits, N×classes, to host memory; returns when they are there."""

    def synchronize(self) -> None:
        """Wait until everything that was begun is done."""

    def describe(self) -> Executed:
        """Say what really ran; asked after the last batch."""


class Backend(Protocol):
    """A way to run networks.

    Attributes:
        name: as `--backend` takes it.
        needs: what it prepares from: a torch module, an ONNX file, an engine, or nothing.
        memory_formats: those of `MEMORY_FORMATS` that mean something to it.

    One that needs ONNX files may have `int8_target`, what they are quantised for: cpu (without)
    or tensorrt. One that takes long to prepare may have `slow_to_prepare = True`: `bench tune`
    tries it last, and less often.
    """

    name: str
    needs: Needs
    memory_formats: Sequence[str]

    def support(self) -> Sequence[Support]:
        """List the pairs it knows, with what is missing here; cheap, and never raises."""

    def prepare(self, workload: Workload) -> Prepared:
        """Make a network ready to run on exactly the device and precision asked for.

        Raises:
            UnsupportedError: it cannot do that; the reason names what is missing.
            OutOfMemoryError: it does not fit.
        """
