"""An ONNX file that engines are built from, whoever made it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.export.files import load
from bench.store.files import sha256_of

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

FILE = "model.onnx"  # the name in a results folder, which tells nothing


@dataclass(frozen=True)
class OnnxInput:
    """An ONNX file to build from, with what is known of it.

    Attributes:
        name: for people and file names.
        file: its path.
        sha256: of the file.
        precision: fp32, fp16 or int8.
        row: columns of the `exports` table that engines share with it.
    """

    name: str
    file: Path
    sha256: str
    precision: str
    row: dict[str, Any]


def from_file(path: Path) -> OnnxInput:
    """Read what is known of a file that somebody gives.

    Raises:
        BenchError: it is missing, truncated, or no sound ONNX file.
    """
    proto = load(path)
    known = {entry.key: entry.value for entry in proto.metadata_props}
    opset = next((e.version for e in proto.opset_import if e.domain == ""), None)
    row = {"run": known.get("run"), "model": known.get("model", path.stem), "opset": opset}
    name = path.stem if path.name != FILE else f"{row['run'] or row['model']}"
    return OnnxInput(name, path, sha256_of(path), _precision(proto), row)


def _precision(proto: onnx.ModelProto) -> str:
    """Tell a graph's arithmetic from its types and Q/DQ pairs."""
    from onnx import TensorProto

    if any(node.op_type == "QuantizeLinear" for node in proto.graph.node):
        return "int8"
    half = any(i.data_type == TensorProto.FLOAT16 for i in proto.graph.initializer)
    return "fp16" if half else "fp32"
