"""ONNX Runtime: CPU, CUDA and TensorRT providers.

onnx and onnxruntime are imported inside functions: listing the backends does not need them.
The CUDA and TensorRT providers have not been run on a GPU yet; the tests call a fake of the
library.
"""

from __future__ import annotations

import contextlib
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

from bench.export.files import inputs_of, onnx_sha256
from bench.measurement.backends.eager import without_cuda
from bench.measurement.backends.ortsession import (
    CPU,
    CUDA,
    TENSORRT,
    OrtOnGpu,
    OrtPrepared,
    device_index,
    session_options,
    why_not_loaded,
)
from bench.measurement.backends.protocol import (
    CHANNELS_LAST,
    CONTIGUOUS,
    MEMORY_FORMATS,
    Needs,
    Prepared,
    Support,
    UnsupportedError,
    Workload,
    prepare_copies,
)
from bench.measurement.profile.onnxruntime_profile import profile_nodes
from bench.system.environment import version_of
from bench.system.folders import cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.measurement.profile.layer_time import LayerProfile

_HALF_ON_CPU = "its CPU provider computes fp16 files in fp32 between casts"
_INT8_ON_CUDA = "its CUDA provider has no int8 convolutions: it would compute Q/DQ files in fp32"
_BF16_ON_CUDA = "its CUDA provider has no max-pooling in bf16, and bench exports no bf16 files"
_BF16_TENSORRT = "bench exports no bf16 files"
_LAUNCHES = (
    "--layers: on a GPU, ONNX Runtime's profiler times the launch of a kernel, not the kernel"
)


class OnnxRuntime:
    """The CPU and the CUDA provider; on CUDA with I/O binding and a captured CUDA graph."""

    name = "onnxruntime"
    needs: Needs = "onnx"
    memory_formats = (CONTIGUOUS,)
    cuda_memory_formats = MEMORY_FORMATS

    def support(self) -> list[Support]:
        """Return the pairs; where there is a GPU, the CUDA provider is loaded once to be sure."""
        missing = _missing("onnxruntime")
        cuda = missing or _without(CUDA) or why_not_loaded(CUDA)
        return [
            Support("cpu", "fp32", missing),
            Support("cpu", "int8", missing),
            Support("cpu", "fp16", missing or _HALF_ON_CPU),
            *(Support("cuda", p, cuda or without_cuda(p)) for p in ("fp32", "tf32", "fp16")),
            Support("cuda", "int8", cuda or _INT8_ON_CUDA),
            Support("cuda", "bf16", cuda or _BF16_ON_CUDA),
        ]

    def prepare(self, workload: Workload) -> OrtPrepared:
        """Open the file on the provider of the requested device, and on no other."""
        if workload.device == "cpu":
            return OrtPrepared(workload, CPU, {})
        return OrtOnGpu(workload, CUDA, cuda_options(workload), graph="enable_cuda_graph")

    def prepare_streams(self, workload: Workload, streams: int) -> list[Prepared]:
        """Prepare a session for each stream."""
        return prepare_copies(self.prepare, workload, streams)

    def profile(self, prepared: OrtPrepared, step: Callable[[], Any], runs: int) -> LayerProfile:
        """Profile the nodes in a session of its own: only a profiled session records them.

        Raises:
            UnsupportedError: on a GPU.
        """
        del step
        if prepared.provider != CPU:
            raise UnsupportedError(_LAUNCHES)
        work = prepared.workload
        images = torch.zeros(work.batch_size, *work.input_shape)
        feed = {prepared.input: prepared.upload(images)}
        return profile_nodes(prepared.file, feed, runs, CPU, session_options(work.threads))


class OnnxRuntimeTensorRT:
    """The TensorRT provider, which builds an engine from the file when it opens it."""

    name = "onnxruntime-tensorrt"
    needs: Needs = "onnx"
    memory_formats = (CONTIGUOUS,)
    int8_target = "tensorrt"

    def support(self) -> list[Support]:
        """Return the CUDA pairs; they run where TensorRT is installed too."""
        missing = (
            _missing("onnxruntime") or _without(TENSORRT) or _missing("tensorrt", "'tensorrt<11'")
        )
        if missing is None:
            _load_libraries()
            missing = why_not_loaded(TENSORRT)
        fp32, tf32 = _tf32()
        return [
            Support("cuda", "fp32", missing or fp32),
            Support("cuda", "tf32", missing or tf32),
            Support("cuda", "fp16", missing),
            Support("cuda", "int8", missing),
            Support("cuda", "bf16", missing or _BF16_TENSORRT),
        ]

    def prepare(self, workload: Workload) -> OrtPrepared:
        """Open the file; nodes that TensorRT does not support run on CUDA and are named."""
        _load_libraries()
        return OrtOnGpu(
            workload, TENSORRT, tensorrt_options(workload), graph="trt_cuda_graph_enable"
        )


def cuda_options(workload: Workload) -> dict[str, Any]:
    """Return the CUDA provider's options."""
    return {
        "device_id": device_index(workload.device),
        "use_tf32": int(workload.precision == "tf32"),
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "prefer_nhwc": int(workload.memory_format == CHANNELS_LAST),
    }


def tensorrt_options(workload: Workload) -> dict[str, Any]:
    """Return the TensorRT provider's options: one shape, the types of the file, a cache."""
    import onnx

    options: dict[str, Any] = {"device_id": device_index(workload.device)}
    if workload.file is not None:
        sides = "x".join(map(str, (workload.batch_size, *workload.input_shape)))
        graph = onnx.load(str(workload.file), load_external_data=False).graph
        shape = f"{inputs_of(graph)[0].name}:{sides}"
        # Without them the engine would be built, and built again, by the first batches.
        options |= {f"trt_profile_{end}_shapes": shape for end in ("min", "opt", "max")}
        options |= _cache(workload.file, workload.batch_size)
    if workload.precision in {"fp16", "int8"}:  # its networks are weakly typed
        options[f"trt_{workload.precision}_enable"] = 1
    return options


def _cache(file: Path, batch_size: int) -> dict[str, Any]:
    """Return where engines are cached: in a folder of its own for each file and version.

    The provider names an engine after the graph, not its weights, and ignores versions
    (microsoft/onnxruntime#22244).
    """
    import onnxruntime as ort

    versions = f"onnxruntime-{ort.__version__}-tensorrt-{version_of('tensorrt')}"
    root = cache_folder("resnet-bench") / "tensorrt-engines"
    folder = root / versions / f"{onnx_sha256(file)[:16]}-batch-{batch_size}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return {}  # it only takes longer
    return {"trt_engine_cache_enable": 1, "trt_engine_cache_path": str(folder)}


def _missing(package: str, requirement: str = "") -> str | None:
    if find_spec(package):
        return None
    return f"{package} is not installed: pip install {requirement or package}"


def _without(provider: str) -> str | None:
    import onnxruntime as ort

    if provider not in ort.get_available_providers():
        kind = provider.removesuffix("ExecutionProvider")
        return f"this ONNX Runtime is built without {kind}: pip install onnxruntime-gpu"
    return None if torch.cuda.is_available() else "torch finds no CUDA device"


def _load_libraries() -> None:
    with contextlib.suppress(ImportError, OSError):
        import_module("tensorrt")  # brings what the provider looks for


def _tf32() -> tuple[str | None, str | None]:
    """Return why fp32, and why tf32, cannot run: the provider has no switch for TF32."""
    none = without_cuda("tf32")
    if none is not None:
        return None, none
    return "TensorRT inside ONNX Runtime computes fp32 in TF32: use --precision tf32", None
