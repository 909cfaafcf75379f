"""Imports stand at the top of a module, unless they would make a command start slowly."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
# Slow to import, an optional extra, or absent on some systems.
LAZY = {
    "contourpy", "cpuinfo", "fcntl", "filelock", "google", "matplotlib", "mlflow", "msvcrt",
    "networkx", "numpy", "onnx", "onnxruntime", "onnxscript", "openvino", "pandas", "PIL",
    "platformdirs", "psutil", "pydantic", "pynvml", "ray", "requests", "resource", "rich",
    "safetensors", "scipy", "statsmodels", "submitit", "tensorboard", "tensorrt", "tensorrt_rtx",
    "timm", "torch", "torchvision", "urllib3",
    "bench.data", "bench.networks", "bench.training",  # they import torch
    "bench.models",  # a cold start measures it; it imports torch when a network is built
    "bench.report.tracking.mlflow", "bench.report.tracking.tensorboard",
}  # fmt: skip
# Commands and the Python interface import only the rooms that a call needs.
ENTRANCES = ("bench/cli/", "bench/api.py")
LAZY_IN_ENTRANCES = LAZY | {"bench", "importlib", "json", "tomllib"}


def imports_in_functions(path: Path) -> Iterator[tuple[int, str]]:
    tree = ast.parse(path.read_text())
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    for function in functions:
        for node in ast.walk(function):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield node.lineno, node.module or "."


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("bench/**/*.py")), ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_only_what_is_slow_or_optional_is_imported_inside_a_function(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    allowed = LAZY_IN_ENTRANCES if name.startswith(ENTRANCES) else LAZY
    prefixes = tuple(f"{module}." for module in allowed)
    found = {
        f"{name}:{line}: {module}"
        for line, module in imports_in_functions(path)
        if not f"{module}.".startswith(prefixes)
    }
    assert not found, "move these to the top of the module"
