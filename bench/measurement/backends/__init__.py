"""Backends: the ways to run a network, one file each, and those of other packages.

Built in are `null`, `eager`, `compile`, `eager-graph`, `compile-graph`, `onnxruntime`,
`onnxruntime-tensorrt`, `tensorrt` and `openvino`; another package adds its own through the entry
point group `bench.backends`.
"""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError, nearest, warn
from bench.measurement.backends.protocol import (
    BOUNDARIES,
    CONTIGUOUS,
    MEMORY_FORMATS,
    PRECISIONS,
    Backend,
    Boundary,
    Executed,
    OutOfMemoryError,
    Prepared,
    ProfilingBackend,
    StreamingBackend,
    Support,
    UnsupportedError,
    Workload,
    status_of,
)
from bench.measurement.profile.layer_time import LayerTime

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "BOUNDARIES",
    "CONTIGUOUS",
    "MEMORY_FORMATS",
    "PRECISIONS",
    "Backend",
    "Boundary",
    "Executed",
    "LayerTime",
    "OutOfMemoryError",
    "Prepared",
    "ProfilingBackend",
    "StreamingBackend",
    "Support",
    "UnsupportedError",
    "Workload",
    "backend_names",
    "backend_rows",
    "is_built_in",
    "load_backend",
    "loaded_backends",
    "status_of",
]

_BUILT_IN = {
    "eager": "eager:Eager",
    "compile": "compiled:Compiled",
    "eager-graph": "cudagraphs:EagerGraph",
    "compile-graph": "cudagraphs:CompiledGraph",
    "onnxruntime": "onnxruntime:OnnxRuntime",
    "onnxruntime-tensorrt": "onnxruntime:OnnxRuntimeTensorRT",
    "tensorrt": "tensorrt:TensorRT",
    "openvino": "openvino:OpenVINO",
    "null": "null:Null",
}


def backend_names() -> list[str]:
    """Return the names of all backends, the built-in ones first."""
    return [*_BUILT_IN, *sorted(e.name for e in _others() if e.name not in _BUILT_IN)]


def is_built_in(name: str) -> bool:
    """Return whether a backend is one of this package's own."""
    return name in _BUILT_IN


def load_backend(name: str) -> Backend:
    """Return the backend called *name*.

    Raises:
        BenchError: there is none, two packages claim the name, or it cannot be loaded.
    """
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        made = getattr(import_module(f"{__name__}.{module}"), attribute)()
        return _checked(name, made)
    found = [entry for entry in _others() if entry.name == name]
    if not found:
        raise BenchError(
            f"unknown backend '{name}'{nearest(name, backend_names())} "
            f"(this machine has: {', '.join(_usable_names())})"
        )
    if len(found) > 1:
        owners = ", ".join(str(entry.value) for entry in found)
        raise BenchError(f"the backend '{name}' is claimed by {owners}; uninstall one")
    try:
        return _checked(name, found[0].load()())
    except Exception as error:  # another package's code may raise anything
        raise BenchError(
            f"the backend '{name}' ({found[0].value}) cannot be loaded: {error}"
        ) from error


def loaded_backends() -> dict[str, Backend]:
    """Return all backends by name, without those of other packages that cannot be loaded."""
    found = {}
    for name in backend_names():
        with suppress(BenchError):
            found[name] = load_backend(name)
    return found


def backend_rows() -> Iterator[dict[str, Any]]:
    """Yield each backend's devices and precisions: which run here, and what others lack.

    A backend of another package that cannot be loaded is a warning.
    """
    for name in backend_names():
        try:
            backend = load_backend(name)
        except BenchError as error:
            warn(str(error))
            continue
        for pair in backend.support():
            yield {
                "name": name,
                "device": pair.device,
                "precision": pair.precision,
                "runs_here": pair.missing is None,
                "missing": pair.missing,
            }


def _usable_names() -> list[str]:
    """Return the names of the backends that can run something on this machine."""
    return [
        name
        for name, backend in loaded_backends().items()
        if any(pair.missing is None for pair in backend.support())
    ]


def _others() -> Any:
    return entry_points(group="bench.backends")


def _checked(name: str, made: Any) -> Backend:
    wanted = ("name", "needs", "memory_formats", "support", "prepare")
    lacking = [member for member in wanted if not hasattr(made, member)]
    if lacking:
        raise BenchError(
            f"the backend '{name}' has no {', '.join(lacking)} "
            "(see bench.measurement.backends.protocol.Backend)"
        )
    backend: Backend = made
    return backend
