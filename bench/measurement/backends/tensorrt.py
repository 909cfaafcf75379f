"""TensorRT engines that `bench export-tensorrt` built, of either flavour, on a CUDA device.

Not run on a GPU yet; the tests call a fake of the library.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bench.errors import BenchError
from bench.export.engines import NO_TF32, read_sidecar
from bench.export.tensorrt import Toolkit
from bench.measurement.backends.protocol import (
    CONTIGUOUS,
    Executed,
    Needs,
    OutOfMemoryError,
    Support,
    UnsupportedError,
    Workload,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


_BUILT = ("fp32", "fp16", "bf16", "int8")  # bf16 from a user's ONNX file only
_TF32 = "engines are built without TF32"
# NVIDIA's support matrix of TensorRT for RTX 1.5 leaves out the data-centre GPUs since Hopper.
_NOT_FOR_RTX = {9, 10}
_NEEDS_STANDARD = "TensorRT for RTX cannot target this GPU (H100, H200, B200): pip install tensorrt"
_TYPES = {
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "BF16": torch.bfloat16,
    "UINT8": torch.uint8,
    "INT8": torch.int8,
    "INT32": torch.int32,
    "INT64": torch.int64,
}


class TensorRT:
    """Runs an engine file through TensorRT or TensorRT for RTX, whichever built it."""

    name = "tensorrt"
    needs: Needs = "engine"
    memory_formats = (CONTIGUOUS,)

    def __init__(self, load: Callable[[str], Any] = importlib.import_module) -> None:
        self.load = load

    def support(self) -> list[Support]:
        """Return CUDA pairs; they run where one of the two libraries is installed."""
        missing = None if torch.cuda.is_available() else "torch finds no CUDA device"
        if not any(map(importlib.util.find_spec, ("tensorrt_rtx", "tensorrt"))):
            missing = "neither tensorrt-rtx nor tensorrt is installed: pip install tensorrt-rtx"
        elif missing is None and not importlib.util.find_spec("tensorrt"):
            hopper = torch.cuda.get_device_capability()[0] in _NOT_FOR_RTX
            missing = _NEEDS_STANDARD if hopper else None
        return [
            *(Support("cuda", precision, missing) for precision in _BUILT),
            Support("cuda", "tf32", missing or _TF32),
        ]

    def prepare(self, workload: Workload) -> EnginePrepared:
        """Load the engine and set the batch."""
        return EnginePrepared(workload, self.load)


class EnginePrepared:
    """An engine with an execution context.

    It runs on a stream of its own: on the default stream, TensorRT waits for the device after
    each batch. Images have a fixed place, which a CUDA graph reads.

    Raises:
        UnsupportedError: the library is missing or refuses the engine or the batch, or the
            engine was made for another input size or compute capability.
        OutOfMemoryError: its working memory does not fit.
    """

    def __init__(self, workload: Workload, load: Callable[[str], Any]) -> None:
        if workload.file is None:
            raise UnsupportedError("TensorRT runs engines: build one with bench export-tensorrt")
        self.workload = workload
        device = workload.device if workload.device.startswith("cuda") else None
        with _current(device):  # an engine belongs to the device that is current when it is loaded
            self.library, self.sidecar, self.engine = open_engine(workload.file, load, device)
            self.context = _context(self.library, self.engine)
        if self.context is None:
            raise OutOfMemoryError(
                f"TensorRT makes no execution context for {workload.file}: its working memory "
                "does not fit on the GPU"
            )
        self.stream = _own_stream(device)
        self.input, self.output = _names(self.engine, self.library)
        self._set_shape()
        self.batch = self._empty((workload.batch_size, *workload.input_shape), self.input)
        self.result = self._empty(tuple(self.context.get_tensor_shape(self.output)), self.output)
        self.context.set_tensor_address(self.input, self.batch.data_ptr())
        self.context.set_tensor_address(self.output, self.result.data_ptr())

    def _set_shape(self) -> None:
        wanted = (self.workload.batch_size, *self.workload.input_shape)
        made = tuple(self.engine.get_tensor_shape(self.input))
        if any(side not in {-1, want} for side, want in zip(made[1:], wanted[1:], strict=True)):
            sizes = ("×".join(map(str, shape[1:])) for shape in (made, wanted))
            raise UnsupportedError("the engine takes images of {}, not of {}".format(*sizes))
        if not self.context.set_input_shape(self.input, wanted):
            low, high = self.sidecar["min_batch"], self.sidecar["max_batch"]
            raise UnsupportedError(f"the engine takes batches of {low} to {high}, not {wanted[0]}")

    def _empty(self, shape: tuple[int, ...], name: str) -> Tensor:
        dtype = _TYPES[_last_word(self.engine.get_tensor_dtype(name))]
        return torch.empty(shape, dtype=dtype, device=self.workload.device)

    def upload(self, images: Tensor) -> Tensor:
        """Copy to where the engine reads, in its own type."""
        if self.stream is not None:  # images may still be prepared on torch's stream
            self.stream.wait_stream(torch.cuda.current_stream(self.workload.device))
        with torch.cuda.stream(self.stream):
            self.batch.copy_(images, non_blocking=images.is_pinned())
        return self.batch

    def infer(self, batch: Tensor) -> Tensor:
        """Enqueue the batch that was uploaded last."""
        del batch
        if not self.context.execute_async_v3(self.stream.cuda_stream if self.stream else 0):
            raise RuntimeError("TensorRT could not enqueue the batch")
        return self.result

    def download(self, output: Tensor) -> Tensor:
        """Copy the logits to the host."""
        with torch.cuda.stream(self.stream):
            return output.cpu()

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.workload.device.startswith("cuda"):
            torch.cuda.synchronize(self.workload.device)

    def describe(self) -> Executed:
        """Read the layers back from the engine's inspector."""
        form = self.library.LayerInformationFormat.JSON
        inspector = self.engine.create_engine_inspector()
        layers = json.loads(inspector.get_engine_information(form)).get("Layers", [])
        return Executed(
            provider=f"TensorRT {self.sidecar['flavor']} {self.library.__version__}",
            precision=self._arithmetic(),
            nodes={"TensorRT": len(layers)},
            details={"layers": layers, "compute_capability": self.sidecar["compute_capability"]},
        )

    def _arithmetic(self) -> str:
        """Return the arithmetic: TensorRT computes fp32 in TF32 unless that is forbidden."""
        built = str(self.sidecar["precision"])
        allowed = NO_TF32 not in self.sidecar["builder_flags"]
        return "tf32" if built == "fp32" and allowed else built


def open_engine(
    file: Path,
    load: Callable[[str], Any] = importlib.import_module,
    device: str | None = None,
) -> tuple[Any, dict[str, Any], Any]:
    """Load an engine whose sidecar fits it, for a GPU (default: torch's current one).

    Returns:
        The library, the sidecar's values, the engine.

    Raises:
        UnsupportedError: it was built for another GPU, or the library is missing or refuses it.
        BenchError: engine or sidecar is damaged or missing.
    """
    sidecar = read_sidecar(Path(file))
    _require_same_gpu(file, str(sidecar["compute_capability"]), device)
    try:
        library = Toolkit(sidecar["flavor"], load).library
    except BenchError as error:
        raise UnsupportedError(str(error)) from None
    if str(library.__version__) != sidecar["tensorrt"]:
        raise UnsupportedError(
            f"{file} was built by TensorRT {sidecar['tensorrt']}, here is {library.__version__}: "
            "build it again with bench export-tensorrt"
        )
    logger = library.Logger(library.Logger.ERROR)
    engine = library.Runtime(logger).deserialize_cuda_engine(Path(file).read_bytes())
    if engine is None:
        raise UnsupportedError(f"TensorRT {library.__version__} refuses {file}: build it again")
    return library, sidecar, engine


def _context(library: Any, engine: Any) -> Any:
    """Return an execution context; None if there is no memory for it.

    TensorRT for RTX compiles for a shape when it first sees it, by default while it answers with a
    slower kernel. Here it compiles before it answers, and captures a CUDA graph.
    """
    if not hasattr(library, "DynamicShapesKernelSpecializationStrategy"):
        return engine.create_execution_context()
    config = engine.create_runtime_config()
    strategies = library.DynamicShapesKernelSpecializationStrategy
    config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
    config.cuda_graph_strategy = library.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    return engine.create_execution_context(config)


def _own_stream(device: str | None) -> Any:
    """Return a stream of a CUDA device; None without one."""
    stream: Any = torch.cuda.Stream  # not annotated by torch
    return None if device is None else stream(device)


def _current(device: str | None) -> AbstractContextManager[Any]:
    usable = device is not None and torch.cuda.is_available()
    return torch.cuda.device(device) if usable else nullcontext()


def _require_same_gpu(file: Path, built_for: str, device: str | None) -> None:
    if not torch.cuda.is_available():
        return  # nothing to compare with: without a device the configuration is refused elsewhere
    here = "".join(map(str, torch.cuda.get_device_capability(device)))
    if built_for != here:
        raise UnsupportedError(
            f"{file} was built for compute capability {built_for}, this GPU has {here}: "
            f"bench export-tensorrt --compute-capability {here}"
        )


def engine_input(file: Path) -> tuple[tuple[int | None, ...], str]:
    """Return the dimensions that an engine takes, None where they are open, and its input's type.

    Raises:
        BenchError: it cannot be opened here.
    """
    library, _, engine = open_engine(file)
    name = _names(engine, library)[0]
    shape = tuple(int(side) for side in engine.get_tensor_shape(name))
    dtype = _TYPES[_last_word(engine.get_tensor_dtype(name))]
    return tuple(None if side < 0 else side for side in shape), str(dtype).removeprefix("torch.")


def _names(engine: Any, library: Any) -> tuple[str, str]:
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    entries = [n for n in names if engine.get_tensor_mode(n) == library.TensorIOMode.INPUT]
    results = [n for n in names if n not in entries]
    if len(entries) != 1 or len(results) != 1:
        raise UnsupportedError(f"the engine has {len(entries)} inputs and {len(results)} outputs")
    return entries[0], results[0]


def _last_word(value: Any) -> str:
    return str(value).rpartition(".")[2]
