"""ONNX Runtime: CPU, CUDA and TensorRT providers, and what of a graph each of them runs."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.measure.backends.protocol import (
    CONTIGUOUS,
    Executed,
    Support,
    UnsupportedError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from bench.measure.backends.protocol import Needs, Workload

CPU, CUDA, TENSORRT = (f"{name}ExecutionProvider" for name in ("CPU", "CUDA", "Tensorrt"))
_NODES = "session.record_ep_graph_assignment_info"
_INT8 = ("QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger")
_FLOAT = {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"}
_NAMED = 5  # nodes that a row names; the record holds all
_HALF_ON_CPU = "its CPU provider computes fp16 files in fp32 between casts"


class OnnxRuntime:
    """The CPU and the CUDA provider."""

    name = "onnxruntime"
    needs: Needs = "onnx"
    memory_formats = (CONTIGUOUS,)

    def support(self) -> list[Support]:
        """List the pairs; CUDA is asked for really only when it is prepared."""
        missing = _missing("onnxruntime")
        cuda = missing or _without_cuda()
        return [
            Support("cpu", "fp32", missing),
            Support("cpu", "int8", missing),
            Support("cpu", "fp16", missing or _HALF_ON_CPU),
            *(Support("cuda", p, cuda) for p in ("fp32", "tf32", "fp16", "int8")),
        ]

    def prepare(self, workload: Workload) -> OrtPrepared:
        """Open the file on the provider that the device means, and on no other."""
        if workload.device == "cpu":
            return OrtPrepared(workload, CPU, {})
        return OrtPrepared(workload, CUDA, _cuda_options(workload))


class OnnxRuntimeTensorRT:
    """The TensorRT provider, which builds an engine of the file when it is opened."""

    name = "onnxruntime-tensorrt"
    needs: Needs = "onnx"
    memory_formats = (CONTIGUOUS,)

    def support(self) -> list[Support]:
        """CUDA devices only."""
        missing = _missing("onnxruntime") or _without_cuda()
        return [Support("cuda", p, missing) for p in ("fp32", "fp16", "int8")]

    def prepare(self, workload: Workload) -> OrtPrepared:
        """Open the file; nodes that TensorRT does not take fall to CUDA and are named."""
        options = {"device_id": _index(workload.device)}
        return OrtPrepared(workload, TENSORRT, options)


class OrtPrepared:
    """A session whose provider was read back.

    Args:
        workload: what is to run.
        provider: the provider that has to run it.
        provider_options: its options.

    Raises:
        UnsupportedError: the provider does not load here (the library that is missing is
            named), or the file cannot be opened.
    """

    def __init__(self, workload: Workload, provider: str, provider_options: dict[str, Any]) -> None:
        import onnxruntime as ort

        if workload.file is None:
            raise UnsupportedError("ONNX Runtime runs ONNX files, and there is none")
        self.ort, self.provider, self.workload = ort, provider, workload
        on_gpu = provider != CPU
        if on_gpu:
            ort.preload_dlls()  # the CUDA libraries that torch's wheels bring
        self.session = self._open(workload.file, provider_options)
        entry = self.session.get_inputs()[0]
        self.input, self.half = entry.name, entry.type == "tensor(float16)"
        self.output = self.session.get_outputs()[0].name
        self.device = "cuda" if on_gpu else "cpu"
        self.binding = self.session.io_binding() if on_gpu else None

    def _open(self, file: Path, provider_options: dict[str, Any]) -> Any:
        options = self.ort.SessionOptions()
        options.intra_op_num_threads = self.workload.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry(_NODES, "1")
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            fused = Path(folder) / "fused.onnx"
            if self.workload.precision == "int8":
                # Q/DQ pairs are fused after nodes are assigned: only the rewritten graph
                # tells which of them are computed in int8.
                options.optimized_model_filepath = str(fused)
            session = self._session(file, options, provider_options)
            self.kernels = _operators(fused) if fused.exists() else Counter[str]()
        return session

    def _session(self, file: Path, options: Any, provider_options: dict[str, Any]) -> Any:
        wanted: list[Any] = [(self.provider, provider_options)]
        if self.provider == TENSORRT:
            wanted.append((CUDA, {"device_id": provider_options["device_id"]}))
        with _native_errors() as said:
            try:
                session = self.ort.InferenceSession(str(file), options, providers=wanted)
            except Exception as error:  # the runtime's exceptions have no common class
                reason = str(error).strip().rpartition(" : ")[2].partition("\n")[0]
                raise UnsupportedError(f"ONNX Runtime cannot open {file.name}: {reason}") from error
        if self.provider not in session.get_providers():
            raise UnsupportedError(
                f"ONNX Runtime's {self.provider} does not load here{_library(said)}; it would "
                f"run on {session.get_providers()[0]} instead: use --device cpu"
            )
        return session

    def upload(self, images: Tensor) -> Any:
        """Give the session's own array type: numpy on the CPU, an OrtValue on a GPU."""
        array = images.half().numpy() if self.half else images.numpy()
        if self.binding is None:
            return array
        return self.ort.OrtValue.ortvalue_from_numpy(
            array, self.device, _index(self.workload.device)
        )

    def infer(self, batch: Any) -> Any:
        """Run one batch; on a GPU inputs and outputs stay there."""
        if self.binding is None:
            return self.session.run([self.output], {self.input: batch})[0]
        self.binding.bind_ortvalue_input(self.input, batch)
        self.binding.bind_output(self.output, self.device, _index(self.workload.device))
        self.session.run_with_iobinding(self.binding)
        return self.binding

    def download(self, output: Any) -> Any:
        """Copy the logits to host memory."""
        return output if self.binding is None else output.copy_outputs_to_cpu()[0]

    def synchronize(self) -> None:
        """Wait for the bound outputs; the CPU provider has finished when `run` returns."""
        if self.binding is not None:
            self.binding.synchronize_outputs()

    def describe(self) -> Executed:
        """Read back the provider of every node."""
        nodes, elsewhere, kinds = assignment(self.session, self.provider)
        warnings = []
        if elsewhere:
            total = sum(nodes.values())
            named = ", ".join(elsewhere[:_NAMED]) + (", …" if len(elsewhere) > _NAMED else "")
            warnings.append(
                f"{len(elsewhere)} of {total} nodes do not run on {self.provider}: {named}"
            )
        return Executed(
            provider=self.provider,
            precision=self._arithmetic(),
            nodes=nodes,
            elsewhere=tuple(elsewhere),
            warnings=tuple(warnings),
            details={
                "providers": self.session.get_providers(),
                "operators": dict(self.kernels or kinds),
                "threads": self.session.get_session_options().intra_op_num_threads,
                "onnxruntime": self.ort.__version__,
            },
        )

    def _arithmetic(self) -> str:
        """Name the arithmetic of the convolutions and products that really run."""
        if self.workload.precision == "int8":
            whole = sum(n for kind, n in self.kernels.items() if kind.startswith(_INT8))
            float32 = sum(n for kind, n in self.kernels.items() if kind in _FLOAT)
            if not whole:
                return "fp32"
            return "int8" if whole >= float32 else f"int8 in {whole} of {whole + float32} layers"
        return "fp32" if self.provider == CPU else self.workload.precision


def assignment(session: Any, wanted: str) -> tuple[dict[str, int], list[str], Counter[str]]:
    """Read which provider runs each node (microsoft/onnxruntime#26781).

    Args:
        session: opened with the session option that records it.
        wanted: the provider that should run all of them.

    Returns:
        Provider → count of nodes; the nodes on another one, as `Operator name (provider)`;
        operator → count.
    """
    nodes: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    elsewhere = []
    for subgraph in session.get_provider_graph_assignment_info():
        for node in subgraph.get_nodes():
            nodes[subgraph.ep_name] += 1
            kinds[node.op_type] += 1
            if subgraph.ep_name != wanted:
                elsewhere.append(f"{node.op_type} {node.name} ({subgraph.ep_name})")
    return dict(nodes), elsewhere, kinds


def _operators(file: Path) -> Counter[str]:
    """Count the operators of a graph."""
    import onnx

    return Counter(n.op_type for n in onnx.load(str(file), load_external_data=False).graph.node)


def _cuda_options(workload: Workload) -> dict[str, Any]:
    return {
        "device_id": _index(workload.device),
        "use_tf32": int(workload.precision == "tf32"),
        "cudnn_conv_algo_search": "EXHAUSTIVE",
    }


def _index(device: str) -> int:
    return int(device.partition(":")[2] or 0)


def _missing(package: str) -> str | None:
    from importlib.util import find_spec

    return None if find_spec(package) else f"{package} is not installed: pip install {package}"


def _without_cuda() -> str | None:
    import onnxruntime as ort
    import torch

    if CUDA not in ort.get_available_providers():
        return "this ONNX Runtime is built without CUDA: pip install onnxruntime-gpu"
    return None if torch.cuda.is_available() else "torch finds no CUDA device"


@contextlib.contextmanager
def _native_errors() -> Iterator[list[str]]:
    """Catch what the library writes to the process's stderr: it names missing files there only."""
    said: list[str] = []
    with tempfile.TemporaryFile() as file:
        before = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(before, 2)
            os.close(before)
            file.seek(0)
            said.append(file.read().decode(errors="replace"))


def _library(said: list[str]) -> str:
    found = re.search(r"with error: (\S+): cannot open shared object file", "".join(said))
    return f" ({found.group(1)} is missing)" if found else ""
