"""fp16: conversion by ONNX Runtime's tool, with the layers kept in fp32 that would overflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto

from bench.export.quantise import runtime_tool
from bench.export.session import open_session, run, with_outputs

if TYPE_CHECKING:
    import numpy.typing as npt

FP16_MAX = 65504.0
# A factor of two below the largest number: other images than those looked at may go higher.
SAFE_MAX = FP16_MAX / 2
_BATCH = 8  # all values of the network are kept at once


def convert_to_fp16(
    proto: onnx.ModelProto, *, keep: list[str], fp16_io: bool = False
) -> onnx.ModelProto:
    """Convert a graph to fp16, except the nodes *keep* and, without *fp16_io*, input and output."""
    copied = onnx.ModelProto()
    copied.CopyFrom(proto)
    convert = runtime_tool("onnxruntime.transformers.float16").convert_float_to_float16
    converted: onnx.ModelProto = convert(copied, keep_io_types=not fp16_io, node_block_list=keep)
    tools = runtime_tool("onnxruntime.quantization.onnx_model")
    sorted_model = tools.ONNXModel(converted)  # the converter appends its casts at the end
    sorted_model.topological_sort()
    del converted.graph.value_info[:]  # their types are those of before
    return converted


def overflowing_layers(
    proto: onnx.ModelProto, images: npt.NDArray[np.float32], threads: int
) -> dict[str, float]:
    """Find the layers of an fp32 graph whose values come near the largest fp16 number.

    Returns:
        Node → largest absolute value among its inputs and outputs, for those above `SAFE_MAX`.
    """
    largest = _largest_values(proto, images, threads)
    layers = {
        node.name: max((largest.get(n, 0.0) for n in (*node.input, *node.output)), default=0.0)
        for node in proto.graph.node
    }
    return {name: value for name, value in layers.items() if value > SAFE_MAX}


def _largest_values(
    proto: onnx.ModelProto, images: npt.NDArray[np.float32], threads: int
) -> dict[str, float]:
    inferred = onnx.shape_inference.infer_shapes(proto)
    kinds = {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}
    outputs = {v.name for v in inferred.graph.output}
    made = [name for node in proto.graph.node for name in node.output if name]
    names = [n for n in made if kinds.get(n) == TensorProto.FLOAT and n not in outputs]
    session = open_session(with_outputs(inferred, names), threads=threads)
    wanted = [*outputs, *names]
    largest = dict.fromkeys(wanted, 0.0)
    for answers in run(session, images, _BATCH, wanted):
        for name, answer in zip(wanted, answers, strict=True):
            largest[name] = max(largest[name], float(np.abs(answer).max()))
    return largest
