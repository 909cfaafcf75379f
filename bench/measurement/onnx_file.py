"""ONNX files: what a given one takes and costs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.export.files import load
from bench.networks.memory_traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_IMAGE_RANK = 4


@dataclass(frozen=True)
class FileFacts:
    """What an ONNX file says of itself.

    Attributes:
        input_shape: channels, height, width.
        static_batch: the one batch size it takes; None for any.
        precision: fp32, fp16 or int8 (Q/DQ pairs or integer operators).
        macs: multiply-adds of one image in convolutions and matrix products; None where
            shapes cannot be inferred.
        traffic: what these read and write; None likewise.
    """

    input_shape: tuple[int, int, int]
    static_batch: int | None
    precision: str
    macs: int | None
    traffic: Traffic | None


def examine(path: Path) -> FileFacts:
    """Read what a file takes.

    Raises:
        BenchError: it is not a valid ONNX file, or takes something else than one batch of images.
    """
    graph = load(path).graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs)
        raise BenchError(f"{path} has {len(inputs)} inputs ({names}); one of images is measured")
    dimensions = [d.dim_value or None for d in inputs[0].type.tensor_type.shape.dim]
    if len(dimensions) != _IMAGE_RANK or None in dimensions[1:]:
        shown = "×".join(str(d or "?") for d in dimensions)
        raise BenchError(
            f"{path} takes {inputs[0].name} of {shown}; what can be measured is N×C×H×W with "
            "fixed C, H and W"
        )
    batch, channels, height, width = dimensions
    assert channels and height and width  # noqa: S101, PT018 - checked above, for the types
    macs, traffic = _count(path)
    return FileFacts((channels, height, width), batch, _precision(graph), macs, traffic)


def _precision(graph: Any) -> str:
    from onnx import TensorProto

    kinds = {node.op_type for node in graph.node}
    if any(k in {"QuantizeLinear", "DequantizeLinear"} or "Integer" in k for k in kinds):
        return "int8"
    types = [tensor.data_type for tensor in graph.initializer]
    half = sum(t == TensorProto.FLOAT16 for t in types)
    return "fp16" if half > sum(t == TensorProto.FLOAT for t in types) else "fp32"


# Operator → places of image, weights and bias among its inputs.
_OPERANDS = {
    "Conv": (0, 1, 2), "ConvInteger": (0, 1), "QLinearConv": (0, 3, 8), "Gemm": (0, 1, 2),
    "MatMul": (0, 1), "MatMulInteger": (0, 1),
}  # fmt: skip


def _count(path: Path) -> tuple[int | None, Traffic | None]:
    """Multiply-adds and traffic of one image, from inferred shapes."""
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
        graph = onnx.shape_inference.infer_shapes(model).graph
        shapes = {
            v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
            for v in (*graph.value_info, *graph.input, *graph.output)
        } | {t.name: list(t.dims) for t in graph.initializer}
        through = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "DequantizeLinear"}
        constants = {t.name for t in graph.initializer}
        constants |= {output for output, origin in through.items() if origin in constants}

        def shape(name: str) -> list[int]:
            return shapes.get(name) or shapes[through[name]]

        counted = [node for node in graph.node if node.op_type in _OPERANDS]
        macs = sum(_macs_of(node, shape) for node in counted)
        return macs, _traffic(counted, shape, constants)
    except (KeyError, IndexError, ValueError, RuntimeError):  # what it counts would be wrong
        return None, None


def _macs_of(node: Any, shape: Callable[[str], list[int]]) -> int:
    if "Conv" in node.op_type:
        weight = shape(node.input[_OPERANDS[node.op_type][1]])
        return math.prod(weight) * math.prod(shape(node.output[0])[2:])
    if node.op_type == "Gemm":
        return math.prod(shape(node.input[1]))
    return math.prod(shape(node.output[0])[1:]) * shape(node.input[0])[-1]


def _traffic(
    nodes: Sequence[Any], shape: Callable[[str], list[int]], constants: set[str]
) -> Traffic:
    """What these nodes read and write (`bench.networks.memory_traffic`)."""
    weights = activations = 0
    for node in nodes:
        places = [place for place in _OPERANDS[node.op_type] if place < len(node.input)]
        names = [node.input[place] for place in places if node.input[place]]
        weights += sum(math.prod(shape(name)) for name in names if name in constants)
        images = [*(name for name in names if name not in constants), node.output[0]]
        activations += sum(math.prod(shape(name)[1:]) for name in images)
    return Traffic(weights, activations)
