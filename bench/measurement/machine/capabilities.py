"""What this machine can do: versions, processor, GPU, backends, data, disk."""

from __future__ import annotations

import platform
import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bench.errors import BenchError
from bench.measurement.backends import Support, backend_names, load_backend
from bench.measurement.machine.nvml import MISSING, open_gpu
from bench.system.devices import default_threads, physical_cores, resolve_device
from bench.system.environment import processor, version_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        name: what was examined.
        state: ok; missing (something optional); broken (bench cannot work with it).
        found: what was found.
        fix: what to do if it is not ok.
    """

    name: str
    state: Literal["ok", "missing", "broken"]
    found: str
    fix: str = ""


def examine_machine(results: Path) -> list[Finding]:
    """Examine everything that bench uses; nothing is installed, downloaded or measured."""
    torch = _torch()
    works = torch.state == "ok"
    return [
        Finding("Python", "ok", f"{platform.python_version()} ({sys.executable})"),
        torch,
        _processor(),
        *(_gpu() if works else []),
        _onnxruntime(),
        *(_backends() if works else []),
        _tensorrt(),
        *map(_optional, ("timm", "torchvision")),
        *(_datasets() if works else []),
        _disk(results),
        *(_choices() if works else []),
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


def _gpu() -> Iterator[Finding]:
    import torch

    if torch.backends.mps.is_available():
        yield Finding("GPU", "ok", "Apple (mps)")
        return
    try:
        resolve_device("cuda")
    except BenchError as error:
        reason = str(error).removeprefix("--device cuda: ").split(";")[0]
        fix = "install an NVIDIA driver, or use the CPU: everything but CUDA rows works"
        yield Finding("GPU", "missing", reason, fix)
        return
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    yield Finding("GPU", "ok", ", ".join(names))
    if open_gpu("cuda") is None:
        found, _, fix = MISSING.partition(": ")
        yield Finding("NVML", "missing", found, fix)


def _onnxruntime() -> Finding:
    try:
        import onnxruntime
    except ImportError as error:
        return Finding("ONNX Runtime", "broken", str(error), "pip install onnxruntime")
    return Finding("ONNX Runtime", "ok", str(onnxruntime.__version__))


def _backends() -> Iterator[Finding]:
    """Yield a line for every backend and device that is here; one for those that lack a GPU."""
    lacking = []
    for name in backend_names():
        try:
            backend = load_backend(name)
        except BenchError as error:  # of another package
            yield Finding(
                f"backend {name}", "missing", str(error), "repair or uninstall that package"
            )
            continue
        if backend.needs != "nothing":
            lines = list(_backend(name, backend.support()))
            yield from lines
            lacking += [] if lines else [name]
    if lacking:
        fix = "they need an NVIDIA GPU; other backends do not"
        yield Finding("other backends", "missing", ", ".join(lacking), fix)


def _backend(name: str, pairs: Sequence[Support]) -> Iterator[Finding]:
    """Yield a line for each device that is here: what runs, or why nothing does."""
    import torch

    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    for device in dict.fromkeys(pair.device for pair in pairs if here.get(pair.device, True)):
        own = [pair for pair in pairs if pair.device == device]
        runs = [pair.precision for pair in own if pair.missing is None]
        if runs:
            yield Finding(f"backend {name}, {device}", "ok", " ".join(runs))
            continue
        found, mark, fix = str(own[0].missing).rpartition(": pip install ")
        if mark:
            yield Finding(f"backend {name}, {device}", "missing", found, f"pip install {fix}")
        else:
            yield Finding(
                f"backend {name}, {device}", "missing", fix, "other devices do not need it"
            )


def _tensorrt() -> Finding:
    flavors = {"rtx": "tensorrt-rtx", "standard": "tensorrt"}
    found = {f: version_of(package) for f, package in flavors.items()}
    here = ", ".join(f"{flavor} {version}" for flavor, version in found.items() if version)
    if here:
        return Finding("TensorRT engines", "ok", f"flavour {here}")
    return Finding("TensorRT engines", "missing", "not installed", "pip install tensorrt-rtx")


def _optional(package: str) -> Finding:
    if version := version_of(package):
        return Finding(package, "ok", version)
    found = f"not installed ({package}:NAME networks)"
    return Finding(package, "missing", found, f"pip install {package}")


def _datasets() -> Iterator[Finding]:
    from bench.data import list_datasets

    known = list_datasets()
    here = [info.name for info in known if info.available]
    absent = [info.name for info in known if not info.available]
    yield Finding("datasets", "ok", ", ".join(here))
    if absent:
        fix = "downloaded when first used; offline, use fashion-mnist-mini"
        yield Finding("other datasets", "missing", ", ".join(absent), fix)


def _disk(results: Path) -> Finding:
    place = next(p for p in (results.absolute(), *results.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    found = f"{free / 1e9:.1f} GB free at {place}"
    if free < 1e9:  # noqa: PLR2004 - a study of a few dozen runs
        return Finding("disk", "broken", found, "free some space, or choose another --results DIR")
    return Finding("disk", "ok", found)


def _choices() -> Iterator[Finding]:
    """Yield what training chooses on this machine by default, and why."""
    from bench.training.layout import SMALL_MAP, preferred_memory_format
    from bench.training.optimisers import muon_precision

    device = resolve_device("auto")
    on_cpu = device.type == "cpu"
    cores = physical_cores()
    threads = f"{cores} of 1 thread; a single run: {default_threads()} threads"
    reason = "runs side by side are fastest" if on_cpu else "one per GPU, four for small networks"
    yield _chosen("workers", threads if on_cpu else f"device {device}", reason)
    muon = muon_precision(device)
    emulated = "bf16 not measured there" if device.type == "mps" else "bf16 would be emulated"
    yield _chosen("Muon's arithmetic", muon, "hardware has it" if muon == "bf16" else emulated)
    if on_cpu:
        yield _chosen("precision", "fp32", "GPUs: bf16; precision in a study")
        layout = f"channels-last; contiguous up to {SMALL_MAP} pixels"
        yield _chosen("memory layout", layout, "fastest in oneDNN")
    else:
        layout = str(preferred_memory_format(device)).removeprefix("torch.")
        yield _chosen("memory layout", layout, "its kernels prefer that")
        half = "bf16 or fp16" if device.type == "cuda" else "fp32"
        yield _chosen("precision", half, "autocast, if the GPU has it; fp32 on request")
    yield _chosen("compile", "off", "it takes 15 to 40 s to start; --compile")


def _chosen(name: str, value: str, reason: str) -> Finding:
    return Finding(f"default {name}", "ok", f"{value} ({reason})")
