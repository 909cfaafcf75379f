"""ONNX Runtime's own converters, imported without what their import does to `sys.path`."""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def runtime_tool(module: str) -> Any:
    """Import a module of ONNX Runtime's tools.

    They append their own folder to the path and import one another from there. That folder
    holds a `models`, which would hide the user's own, so it is taken away again.
    """
    spec = find_spec("onnxruntime")
    assert spec is not None  # noqa: S101 - a dependency of this package
    assert spec.origin is not None  # noqa: S101
    path = list(sys.path)
    sys.path.append(str(Path(spec.origin).parent / "transformers"))
    try:
        return importlib.import_module(module)
    finally:
        sys.path[:] = path
