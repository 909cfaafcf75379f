"""ONNX Runtime sessions: which provider was loaded, and which nodes it really runs.

onnx and onnxruntime are imported inside functions: listing the backends does not need them.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.dlpack import from_dlpack

from bench.export.messages import short
from bench.measurement.backends.protocol import Executed, UnsupportedError, Workload, arithmetic
from bench.models.errors import first_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


CPU, CUDA, TENSORRT = (f"{name}ExecutionProvider" for name in ("CPU", "CUDA", "Tensorrt"))
_NODES = "session.record_ep_graph_assignment_info"
# Prefixes of their names: the runtime fuses the quantisation before an operator and the scaling
# after it into operators of its own.
_INT8 = (
    *("QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger"),
    *("DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "QAttention"),
)
_FLOAT = {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"}
_NAMED = 5  # nodes that a row names; the record holds all
_ONE_NODE = (
    '<ir_version: 9, opset_import: ["": 17]> probe (float[1] x) => (float[1] y) { y = Relu(x) }'
)
_NO_GRAPH = "cannot use the graph capture feature"  # in the runtime's message if it refuses one
_ASYNCHRONOUS = "disable_synchronize_execution_providers"
_TENSORRT_10 = "libnvinfer.so.10"  # of the provider in ONNX Runtime 1.31


def session_options(threads: int) -> Any:
    """Return the options of every session that is measured or profiled."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options


class OrtPrepared:
    """A session on the CPU provider; the base of `OrtOnGpu`.

    Raises:
        UnsupportedError: the provider does not load here (the library that is missing is
            named), or the file cannot be opened.
    """

    def __init__(self, workload: Workload, provider: str, provider_options: dict[str, Any]) -> None:
        import onnxruntime as ort

        if workload.file is None:
            raise UnsupportedError("ONNX Runtime runs ONNX files, and there is none")
        self.ort, self.provider, self.workload = ort, provider, workload
        self.file = workload.file
        self.kernels = Counter[str]()
        self.session = self._open(provider_options)
        entry = self.session.get_inputs()[0]
        self.input, self.dtype = entry.name, _dtype(entry)
        self.output = self.session.get_outputs()[0].name

    def _open(self, provider_options: dict[str, Any]) -> Any:
        import onnx

        options = session_options(self.workload.threads)
        options.add_session_config_entry(_NODES, "1")
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            fused = Path(folder) / "fused.onnx"
            if self.workload.precision == "int8" and self.provider == CPU:
                # Q/DQ pairs are fused after nodes are assigned: only the rewritten graph
                # shows which of them are computed in int8. Engines cannot be written like this.
                options.optimized_model_filepath = str(fused)
            session = self._session(options, provider_options)
            if fused.exists():
                graph = onnx.load(str(fused), load_external_data=False).graph
                self.kernels = Counter(node.op_type for node in graph.node)
        return session

    def _session(self, options: Any, provider_options: dict[str, Any]) -> Any:
        wanted: list[Any] = [(self.provider, provider_options)]
        if self.provider == TENSORRT:
            wanted.append((CUDA, {"device_id": provider_options["device_id"]}))
        with native_errors() as messages:
            try:
                session = self.ort.InferenceSession(str(self.file), options, providers=wanted)
            except Exception as error:  # the runtime's exceptions have no common class
                raise UnsupportedError(
                    f"ONNX Runtime {self.ort.__version__} cannot open {self.file.name}: "
                    f"{short(error)}"
                ) from error
        if self.provider not in session.get_providers():
            raise UnsupportedError(
                f"ONNX Runtime's {self.provider} does not load here{_library(messages)}; it would "
                f"run on {session.get_providers()[0]} instead: use --device cpu"
            )
        return session

    def upload(self, images: Tensor) -> Any:
        """Convert to the session's array type."""
        return images.to(self.dtype).numpy()

    def infer(self, batch: Any) -> Any:
        """Run one batch."""
        return self.session.run([self.output], {self.input: batch})[0]

    def download(self, output: Any) -> Any:
        """Return the logits, already in host memory."""
        return output

    def synchronize(self) -> None:
        """Return at once: the CPU provider has finished when `run` returns."""

    def describe(self) -> Executed:
        """Read back the provider of every node (microsoft/onnxruntime#26781)."""
        placed = [
            (node, group.ep_name)
            for group in self.session.get_provider_graph_assignment_info()
            for node in group.get_nodes()
        ]
        elsewhere = [
            f"{n.op_type} {n.name} ({where})" for n, where in placed if where != self.provider
        ]
        warnings = []
        if elsewhere:
            named = ", ".join(elsewhere[:_NAMED]) + (", …" if len(elsewhere) > _NAMED else "")
            warnings.append(
                f"{len(elsewhere)} of {len(placed)} nodes do not run on {self.provider}: {named}"
            )
        return Executed(
            provider=self.provider,
            precision=self._arithmetic(),
            nodes=dict(Counter(where for _, where in placed)),
            elsewhere=tuple(elsewhere),
            warnings=tuple(warnings),
            details={
                "providers": self.session.get_providers(),
                "operators": dict(self.kernels or Counter(node.op_type for node, _ in placed)),
                "threads": self.session.get_session_options().intra_op_num_threads,
                "onnxruntime": self.ort.__version__,
            },
        )

    def _arithmetic(self) -> str:
        """Return the arithmetic of the convolutions and products that really run."""
        if self.provider != CPU:  # set by the session's options and the file's types
            return self.workload.precision
        if self.workload.precision == "int8":
            integer = sum(n for kind, n in self.kernels.items() if kind.startswith(_INT8))
            return arithmetic(integer, sum(n for k, n in self.kernels.items() if k in _FLOAT))
        return "fp32"


class OrtOnGpu(OrtPrepared):
    """A session on a GPU: inputs and outputs stay there, and its kernels start as one graph.

    Images and logits have fixed addresses, since a captured CUDA graph reads and writes where it
    did when it was captured. The constructor runs the first batch, which captures the graph or
    builds an engine. *graph* is the provider's option that captures a CUDA graph.
    """

    def __init__(
        self, workload: Workload, provider: str, provider_options: dict[str, Any], *, graph: str
    ) -> None:
        import onnxruntime as ort

        ort.preload_dlls()  # the CUDA libraries that torch's wheels bring
        begin = time.perf_counter()
        self.no_graph: str | None = None
        try:
            super().__init__(workload, provider, {**provider_options, graph: 1})
        except UnsupportedError as error:
            if _NO_GRAPH not in str(error):
                raise
            self.no_graph = str(error).rpartition(_NO_GRAPH)[2].strip(" .") or "refused"
            super().__init__(workload, provider, provider_options)
        self.asynchronous = ort.RunOptions()  # else `run` waits for the device after every batch
        self.asynchronous.add_run_config_entry(_ASYNCHRONOUS, "1")
        self.binding = self.session.io_binding()
        self.images = self._place(self.session.get_inputs()[0], workload.input_shape)
        self.result = self._place(self.session.get_outputs()[0], None)
        self.binding.bind_ortvalue_input(self.input, self.images)
        self.binding.bind_ortvalue_output(self.output, self.result)
        self.infer(self.images)
        self.synchronize()
        seconds = time.perf_counter() - begin
        self.compile_seconds = seconds if provider == TENSORRT else None

    def _place(self, entry: Any, shape: tuple[int, ...] | None) -> Any:
        """Allocate a tensor on the GPU for one batch of an input or output."""
        sides = tuple(entry.shape[1:]) if shape is None else shape
        if not all(isinstance(side, int) for side in sides):
            raise UnsupportedError(f"its output {entry.name} has no fixed shape: {entry.shape}")
        kind = torch.empty(0, dtype=_dtype(entry)).numpy().dtype.type
        index = device_index(self.workload.device)
        full = [self.workload.batch_size, *sides]
        return self.ort.OrtValue.ortvalue_from_shape_and_type(full, kind, "cuda", index)

    def upload(self, images: Tensor) -> Any:
        """Copy to the address where the graph reads them."""
        if images.is_cuda:
            self._copy_on_device(images)
        else:
            self.images.update_inplace(super().upload(images))
        return self.images

    def _copy_on_device(self, images: Tensor) -> None:
        """Copy a batch that torch holds on the same device; the runtime's stream is another one."""
        from_dlpack(self.images).copy_(images)
        torch.cuda.current_stream(self.workload.device).synchronize()

    def infer(self, batch: Any) -> Any:
        """Start the batch that was uploaded last."""
        del batch
        self.session.run_with_iobinding(self.binding, self.asynchronous)
        return self.binding

    def download(self, output: Any) -> Any:
        """Copy the logits to host memory, when they are there."""
        output.synchronize_outputs()
        return output.copy_outputs_to_cpu()[0]

    def synchronize(self) -> None:
        """Wait for the logits."""
        self.binding.synchronize_outputs()

    def describe(self) -> Executed:
        """Read back the providers, the CUDA graph and the time to build."""
        executed = super().describe()
        refused = (f"without a CUDA graph: {self.no_graph}",) if self.no_graph else ()
        return replace(
            executed,
            compile_seconds=self.compile_seconds,
            warnings=(*executed.warnings, *refused),
            details=executed.details | {"cuda_graph": self.no_graph is None},
        )


def device_index(device: str) -> int:
    """Return N of cuda:N, 0 of cuda."""
    return int(device.partition(":")[2] or 0)


@functools.cache
def why_not_loaded(provider: str) -> str | None:
    """Open a one-node graph on a provider: a provider that is listed need not load.

    Returns:
        None if it loads; else the reason, with the loader's own message where there is one.
    """
    import onnxruntime as ort
    from onnx import parser

    model = parser.parse_model(_ONE_NODE)
    ort.preload_dlls()
    with native_errors() as messages, contextlib.redirect_stdout(io.StringIO()):
        try:
            session = ort.InferenceSession(
                model.SerializeToString(), ort.SessionOptions(), providers=[provider]
            )
        except Exception as error:  # the runtime's exceptions have no common class
            return f"its {provider} cannot start: {first_line(error)[:200]}"
        loaded = provider in session.get_providers()
    return None if loaded else f"its {provider} does not load here{_library(messages)}"


@contextlib.contextmanager
def native_errors() -> Iterator[list[str]]:
    """Catch what a library writes to stderr: only there does it name missing files."""
    messages: list[str] = []
    with tempfile.TemporaryFile() as file:
        before = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield messages
        finally:
            os.dup2(before, 2)
            os.close(before)
            file.seek(0)
            messages.append(file.read().decode(errors="replace"))


def _dtype(entry: Any) -> torch.dtype:
    """Return the type of a session's input or output, which it writes as `tensor(float16)`."""
    name = entry.type.removeprefix("tensor(").removesuffix(")")
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def _library(messages: list[str]) -> str:
    """Return what the system's loader said, and what to do about TensorRT's library."""
    found = re.search(r"with error: ([^\n\x1b]+)", "".join(messages))
    if found is None:
        return ""
    advice = "; pip install 'tensorrt<11'" if _TENSORRT_10 in found[1] else ""
    return f" ({found[1].strip()}{advice})"
