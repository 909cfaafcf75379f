"""Resizing and normalisation as part of the graph, so that a file takes images as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, compose, helper, numpy_helper

from bench.errors import BenchError
from bench.export.graph import INPUT, OUTPUT

if TYPE_CHECKING:
    import onnx

    from bench.data import Preprocessing
    from bench.targets.network import LoadedNetwork

_PREPARED = "prepared"


def require_preprocessing(source: LoadedNetwork, option: str) -> Preprocessing:
    """Return the preprocessing of a run's images, for an option that needs it.

    Raises:
        BenchError: *source* is a bare model.
    """
    if source.preprocessing is None:
        raise BenchError(
            f"{option} needs a trained run: the bare model {source.name} has no mean, deviation "
            "or classes; train it with 'bench train' and name the run"
        )
    return source.preprocessing


def with_preprocessing(
    proto: onnx.ModelProto, preprocessing: Preprocessing, channels: int, static_batch: int | None
) -> onnx.ModelProto:
    """Put the preprocessing of images in front of a graph.

    Returns:
        A graph from `image` (uint8, N×H×W×C, any H and W) to `logits`.
    """
    opset = next(entry.version for entry in proto.opset_import if entry.domain == "")
    before = _preprocessing_graph(proto, preprocessing, channels, static_batch, opset)
    after = compose.add_prefix(
        proto, "network/", rename_inputs=True, rename_outputs=False, rename_edges=False,
        rename_initializers=False, rename_value_infos=False, rename_nodes=False,
        rename_functions=False,
    )  # fmt: skip
    after.graph.output[0].name = OUTPUT
    merged = compose.merge_models(before, after, io_map=[(_PREPARED, f"network/{INPUT}")])
    merged.producer_name, merged.producer_version = proto.producer_name, proto.producer_version
    merged.graph.name = proto.graph.name
    return merged


def _preprocessing_graph(
    proto: onnx.ModelProto, made: Preprocessing, channels: int, batch: int | None, opset: int
) -> onnx.ModelProto:
    """Cast, transpose, scale and shift as in training, then resize to the network's side."""
    scale, shift = _scale_and_shift(made, channels)
    constants = {
        "prepare/scale": scale,
        "prepare/shift": shift,
        "prepare/size": np.array([made.input_size, made.input_size], np.int64),
    }
    nodes = [
        helper.make_node("Cast", [INPUT], ["prepare/float"], "prepare/Cast", to=TensorProto.FLOAT),
        helper.make_node(
            "Transpose", ["prepare/float"], ["prepare/channels_first"], "prepare/Transpose",
            perm=[0, 3, 1, 2],
        ),
        helper.make_node(
            "Mul", ["prepare/channels_first", "prepare/scale"], ["prepare/scaled"], "prepare/Mul"
        ),
        helper.make_node(
            "Sub", ["prepare/scaled", "prepare/shift"], ["prepare/shifted"], "prepare/Sub"
        ),
        helper.make_node(
            "Resize", ["prepare/shifted", "", "", "prepare/size"], [_PREPARED], "prepare/Resize",
            mode="linear", coordinate_transformation_mode="half_pixel", axes=[2, 3],
            antialias=int(made.antialias),
            # Weights outside the image count for nothing, as in PyTorch.
            exclude_outside=int(made.antialias),
        ),
    ]  # fmt: skip
    rows = batch or "batch"
    side = made.input_size
    graph = helper.make_graph(
        nodes,
        "prepare",
        [
            helper.make_tensor_value_info(
                INPUT, TensorProto.UINT8, [rows, "height", "width", channels]
            )
        ],
        [helper.make_tensor_value_info(_PREPARED, TensorProto.FLOAT, [rows, channels, side, side])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=proto.ir_version)


def _scale_and_shift(made: Preprocessing, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Constants of `grey * scale - shift`, as `bench.data.Preprocessing` computes it."""
    mean = np.array(made.mean, np.float32).reshape(1, -1, 1, 1)
    std = np.array(made.std, np.float32).reshape(1, -1, 1, 1)
    if not made.normalize:
        return np.full((1, channels, 1, 1), 1 / 255, np.float32), np.zeros((1, 1, 1, 1), np.float32)
    return (1 / (255 * std)).astype(np.float32), (mean / std).astype(np.float32)
