"""What this machine can do: versions, processor, GPU, runtimes, data, disk."""

from __future__ import annotations

import contextlib
import io
import platform
import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bench.devices import physical_cores
from bench.environment import processor, version_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True)
class Finding:
    """One line of the examination.

    Attributes:
        name: what was looked at.
        state: ok; missing (something optional); broken (bench cannot work with it).
        found: what was found.
        fix: what to do where it is not ok.
    """

    name: str
    state: Literal["ok", "missing", "broken"]
    found: str
    fix: str = ""


def examine(results: Path) -> list[Finding]:
    """Look at everything that bench uses; nothing is installed, downloaded or measured."""
    torch = _torch()
    return [
        Finding("Python", "ok", f"{platform.python_version()} ({sys.executable})"),
        torch,
        _processor(),
        *([_gpu()] if torch.state == "ok" else []),
        *_onnxruntime(),
        *_tensorrt(),
        *_optional("timm", "timm:NAME networks"),
        *_optional("torchvision", "torchvision:NAME networks"),
        *(_datasets() if torch.state == "ok" else []),
        _disk(results),
    ]


def _torch() -> Finding:
    try:
        import torch
    except ImportError as error:
        return Finding("torch", "broken", str(error), "pip install torch")
    capability = torch.backends.cpu.get_cpu_capability()
    return Finding("torch", "ok", f"{torch.__version__}, CPU kernels for {capability}")


def _processor() -> Finding:
    name, sets = processor()
    cores = physical_cores()
    return Finding("processor", "ok", f"{name}, {cores} usable cores, {' '.join(sets)}")


def _gpu() -> Finding:
    import torch

    from bench.devices import resolve_device
    from bench.errors import BenchError

    if torch.backends.mps.is_available():
        return Finding("GPU", "ok", "Apple (mps)")
    try:
        resolve_device("cuda")
    except BenchError as error:
        reason = str(error).removeprefix("--device cuda: ").split(";")[0]
        fix = "install an NVIDIA driver, or use the CPU: everything but CUDA rows works"
        return Finding("GPU", "missing", reason, fix)
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Finding("GPU", "ok", ", ".join(names))


def _onnxruntime() -> Iterator[Finding]:
    """Tell which providers really load: being listed as available means nothing."""
    try:
        import onnxruntime
    except ImportError as error:
        yield Finding("ONNX Runtime", "broken", str(error), "pip install onnxruntime")
        return
    yield Finding("ONNX Runtime", "ok", str(onnxruntime.__version__))
    for provider in onnxruntime.get_available_providers():
        name = f"  {provider.removesuffix('ExecutionProvider')}"
        loaded = _loaded_providers(provider)
        if provider in loaded:
            yield Finding(name, "ok", "loads")
        else:
            fix = "needs an NVIDIA GPU and the CUDA libraries of the onnxruntime-gpu version"
            yield Finding(name, "missing", "listed, but does not load here", fix)


def _loaded_providers(provider: str) -> list[str]:
    """Providers that a session over a one-node graph gets when it asks for *provider*."""
    import onnxruntime
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "probe", [value], [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # a provider that fails to load logs a page
    onnxruntime.set_default_logger_severity(4)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # where it tells of its fall-back
            session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=[provider]
            )
    except Exception:  # each provider raises errors of its own kinds; any means it does not load
        return []
    finally:
        onnxruntime.set_default_logger_severity(2)
    return list(session.get_providers())


def _tensorrt() -> Iterator[Finding]:
    for module, package in (("TensorRT for RTX", "tensorrt_rtx"), ("TensorRT", "tensorrt")):
        version = version_of(package)
        if version:
            yield Finding(module, "ok", version)
        else:
            yield Finding(module, "missing", "not installed", f"pip install {package}")


def _optional(package: str, purpose: str) -> Iterator[Finding]:
    version = version_of(package)
    if version:
        yield Finding(package, "ok", version)
    else:
        yield Finding(package, "missing", f"not installed ({purpose})", f"pip install {package}")


def _datasets() -> Iterator[Finding]:
    from bench.data import list_datasets

    for info in list_datasets():
        if info.available:
            yield Finding(f"dataset {info.name}", "ok", str(info.where))
        else:
            fix = "downloaded when first used; offline, use fashion-mnist-mini"
            yield Finding(f"dataset {info.name}", "missing", "not here yet", fix)


def _disk(results: Path) -> Finding:
    place = next(p for p in (results.absolute(), *results.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    found = f"{free / 1e9:.1f} GB free at {place}"
    if free < 1e9:  # noqa: PLR2004 - a study of a few dozen runs
        return Finding("disk", "broken", found, "free some space, or choose another --results DIR")
    return Finding("disk", "ok", found)
