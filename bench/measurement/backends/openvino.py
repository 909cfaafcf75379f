"""OpenVINO on the CPU, from an ONNX file; an extra (`pip install resnet-bench[openvino]`)."""

from __future__ import annotations

import time
from copy import copy
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from bench.measurement.backends.protocol import (
    CONTIGUOUS,
    Executed,
    Needs,
    Prepared,
    Support,
    UnsupportedError,
    Workload,
    arithmetic,
)

if TYPE_CHECKING:
    from torch import Tensor


_MISSING = "openvino is not installed: pip install 'resnet-bench[openvino]'"


class OpenVINO:
    """Runs synchronous requests: one with all threads, or one for each of several streams."""

    name = "openvino"
    needs: Needs = "onnx"
    memory_formats = (CONTIGUOUS,)

    def support(self) -> list[Support]:
        """Return fp32 and int8 on the CPU."""
        missing = None if find_spec("openvino") else _MISSING
        return [Support("cpu", precision, missing) for precision in ("fp32", "int8")]

    def prepare(self, workload: Workload) -> OpenVINOPrepared:
        """Compile the file for the CPU and this batch."""
        return OpenVINOPrepared(workload)

    def prepare_streams(self, workload: Workload, streams: int) -> list[Prepared]:
        """Compile the file once, with so many streams, and make a request for each."""
        first = OpenVINOPrepared(workload, streams)
        return [first, *(first.another() for _ in range(streams - 1))]


class OpenVINOPrepared:
    """A compiled model with one inference request."""

    def __init__(self, workload: Workload, streams: int = 1) -> None:
        import openvino

        if workload.file is None:
            raise UnsupportedError("OpenVINO runs ONNX files, and there is none")
        core = openvino.Core()
        begin = time.perf_counter()
        try:
            model = core.read_model(workload.file)
            model.reshape([workload.batch_size, *workload.input_shape])
            self.compiled = core.compile_model(model, "CPU", settings(workload, streams))
        except RuntimeError as error:
            reason = str(error).strip().rpartition("\n")[2]
            raise UnsupportedError(
                f"OpenVINO cannot compile {workload.file.name}: {reason}"
            ) from error
        self.compile_seconds = time.perf_counter() - begin
        self.dtype = self.compiled.input(0).get_element_type().to_dtype()
        self.request = self.compiled.create_infer_request()
        self.version = openvino.__version__

    def another(self) -> OpenVINOPrepared:
        """Return the same compiled model with a request of its own."""
        other = copy(self)
        other.request = self.compiled.create_infer_request()
        return other

    def upload(self, images: Tensor) -> Any:
        """Return an array of the file's own type."""
        return images.numpy().astype(self.dtype, copy=False)

    def infer(self, batch: Any) -> Any:
        """Run one batch; the input is read where it lies."""
        return self.request.infer([batch], share_inputs=True, share_outputs=True)

    def download(self, output: Any) -> Any:
        """Return the logits, already in host memory."""
        return output[self.compiled.output(0)]

    def synchronize(self) -> None:
        """Return at once: the request is synchronous."""

    def describe(self) -> Executed:
        """Read devices, precision and threads back from the compiled graph."""
        kinds = _precisions(self.compiled)
        integer = sum(kinds.get(kind, 0) for kind in ("u8", "i8"))
        hint = self.compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        device = self.compiled.get_property("EXECUTION_DEVICES")[0]
        return Executed(
            provider=f"OpenVINO {self.version} {device}",
            precision=arithmetic(integer, sum(kinds.values()) - integer)
            if integer
            else str(hint).replace("f32", "fp32"),
            compile_seconds=self.compile_seconds,
            details={
                "threads": int(self.compiled.get_property("INFERENCE_NUM_THREADS")),
                "streams": int(self.compiled.get_property("NUM_STREAMS")),
                "layers_by_precision": kinds,
            },
        )


def settings(workload: Workload, streams: int) -> dict[str, Any]:
    """Return the properties that the file is compiled with."""
    return {
        "INFERENCE_NUM_THREADS": workload.threads // streams * streams,
        "NUM_STREAMS": streams,
        "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
        "INFERENCE_PRECISION_HINT": "f32",  # without it, bf16 is chosen on processors with AMX
    }


def _precisions(compiled: Any) -> dict[str, int]:
    """Count the executed convolutions and products by the precision they ran in."""
    counts: dict[str, int] = {}
    for node in compiled.get_runtime_model().get_ops():
        info = node.get_rt_info()
        kind = str(info["layerType"].astype(str)) if "layerType" in info else ""
        if kind in {"Convolution", "FullyConnected", "MatMul"}:
            precision = str(info["runtimePrecision"].astype(str))
            counts[precision] = counts.get(precision, 0) + 1
    return counts
