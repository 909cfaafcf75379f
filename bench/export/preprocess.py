"""Resizing and normalisation as part of the graph, so that a file takes images as they are.

Images are resized as Pillow does, which is how bench reads image files: one matrix per axis, with
weights of 22 binary places, and whole grey levels after each axis (Resample.c, bilinear filter). In
double precision these sums are exact, so that ONNX Runtime gives the network the same grey levels
as in training, bit for bit; ONNX's own Resize would keep fractions of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, compose, helper, numpy_helper

from bench.errors import BenchError
from bench.export.graph import INPUT, OUTPUT

if TYPE_CHECKING:
    import onnx

    from bench.data import Preprocessing
    from bench.data.preprocessing import Resize
    from bench.targets.network import LoadedNetwork

PREFIX = "prepare/"  # begins the names of all nodes here
_PREPARED = "prepared"
_ONE = float(2**22)  # a weight of 1


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


def resizes_images(proto: onnx.ModelProto) -> bool:
    """Return whether a graph begins with the preprocessing that `with_preprocessing` puts there."""
    return any(node.name.startswith(PREFIX) for node in proto.graph.node)


def with_preprocessing(
    proto: onnx.ModelProto, preprocessing: Preprocessing, channels: int, static_batch: int | None
) -> onnx.ModelProto:
    """Put the preprocessing of images in front of a graph.

    Returns:
        A graph from `image` (uint8, N×H×W×C, any H and W) to `logits`.
    """
    opset = next(entry.version for entry in proto.opset_import if entry.domain == "")
    before = helper.make_model(
        _preprocessing_graph(preprocessing, channels, static_batch or "batch"),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=proto.ir_version,
    )
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


@dataclass
class _Nodes:
    """The nodes and constants of a graph; a call adds a node, and returns its output's name."""

    place: str = ""  # begins their names, after `PREFIX`
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def __call__(self, kind: str, *inputs: Any, **attributes: Any) -> str:
        """Add a node; inputs are names, or numbers and arrays, which become constants."""
        name = f"{PREFIX}{self.place}{kind}_{len(self.nodes)}"
        names = [value if isinstance(value, str) else self._constant(value) for value in inputs]
        self.nodes.append(helper.make_node(kind, names, [name], name, **attributes))
        return name

    def _constant(self, value: Any) -> str:
        name = f"{PREFIX}{self.place}constant_{len(self.constants)}"
        array = np.asarray(value, np.float64 if isinstance(value, float) else None)
        self.constants.append(numpy_helper.from_array(array, name))
        return name


def _preprocessing_graph(made: Preprocessing, channels: int, batch: int | str) -> onnx.GraphProto:
    """Write `bench.data.Preprocessing.apply` as a graph, from `image` to `prepared`."""
    add = _Nodes()
    side = made.input_size
    assert side is not None  # noqa: S101 - a run has one
    size = made.image_size or side
    levels = _resized(add, size, made.resize)
    floats = _normalised(add, add("Cast", levels, to=TensorProto.FLOAT), made)
    if size != side:
        floats = add(
            "Resize", floats, "", "", np.array([side, side], np.int64),
            mode="linear", coordinate_transformation_mode="half_pixel", axes=[2, 3],
            antialias=int(made.antialias),
            # Weights outside the image count for nothing, as in PyTorch.
            exclude_outside=int(made.antialias),
        )  # fmt: skip
    add.nodes[-1].output[0] = _PREPARED
    taken, given = [batch, "height", "width", channels], [batch, channels, side, side]
    return helper.make_graph(
        add.nodes,
        "prepare",
        [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, taken)],
        [helper.make_tensor_value_info(_PREPARED, TensorProto.FLOAT, given)],
        add.constants,
    )


def _resized(add: _Nodes, side: int, resize: Resize) -> str:
    """Return whole grey levels in double precision, N×C×side×side."""
    pixels = add("Cast", add("Transpose", INPUT, perm=[0, 3, 1, 2]), to=TensorProto.DOUBLE)
    height, width = (_length(add, axis) for axis in (1, 2))
    wide, across = _matrix(add, width, height, side, resize)
    high, down = _matrix(add, height, width, side, resize)
    down = add("Transpose", down, perm=[1, 0])
    shrunk = add("Sub", height, high)
    twice = add("Mul", add("Sub", width, wide), 2.0)
    columns_first = add("And", add("Greater", shrunk, 0.0), add("Greater", shrunk, twice))
    branches = {}
    for name, first in (("then_branch", down), ("else_branch", across)):
        branch = _Nodes(f"{name}/")
        levels = pixels
        for matrix in (first, down if first is across else across):
            factors = (levels, matrix) if matrix is across else (matrix, levels)
            levels = _whole_levels(branch, branch("MatMul", *factors))
        output = helper.make_tensor_value_info(levels, TensorProto.DOUBLE, None)
        branches[name] = helper.make_graph(branch.nodes, name, [], [output], branch.constants)
    return add("If", columns_first, **branches)


def _length(add: _Nodes, axis: int) -> str:
    """Return an axis' length in pixels as a number of double precision."""
    length = add("Squeeze", add("Shape", INPUT, start=axis, end=axis + 1))
    return add("Cast", length, to=TensorProto.DOUBLE)


def _matrix(
    add: _Nodes, length: str, other: str, side: int, resize: Resize
) -> tuple[str | float, str]:
    """Write how an axis is resized.

    Args:
        add: The graph.
        length: Length of the axis in pixels.
        other: Length of the other axis.
        side: Pixels of the result.
        resize: See `bench.data.preprocessing.resize_image`.

    Returns:
        The pixels of the result that show the image, and the weight of each of the axis' pixels
        in each of the result's, times 2**22.
    """
    places, shown = np.arange(side, dtype=np.float64), length
    inner: str | float = float(side)
    begin: str | float = 0.0
    margin: str | float = 0.0
    if resize == "crop":
        shown = add("Min", length, other)
        begin = add("Mul", add("Sub", length, shown), 0.5)
    elif resize == "pad":
        inner = add("Mul", add("Div", length, add("Max", length, other)), float(side))
        inner = add("Max", add("Round", inner), 1.0)
        margin = add("Round", add("Mul", add("Sub", float(side), inner), 0.5))
    scale = add("Div", shown, inner)
    middles = add("Add", add("Sub", places, margin), 0.5)
    middles = add("Add", add("Mul", middles, scale), begin)
    pixels = add("Unsqueeze", add("Range", 0.0, length, 1.0), np.array([1]))
    distances = add("Add", add("Sub", pixels, middles), 0.5)
    distances = add("Abs", add("Mul", distances, add("Div", 1.0, add("Max", scale, 1.0))))
    weights = add("Max", add("Sub", 1.0, distances), 0.0)
    weights = add("Div", weights, add("ReduceSum", weights, np.array([0]), keepdims=1))
    weights = add("Floor", add("Add", add("Mul", weights, _ONE), 0.5))
    if resize != "pad":
        return inner, weights
    after = add("Less", places, add("Add", margin, inner))
    inside = add("And", add("GreaterOrEqual", places, margin), after)
    return inner, add("Where", inside, weights, 0.0)


def _whole_levels(add: _Nodes, sums: str) -> str:
    rounded = add("Floor", add("Add", add("Div", sums, _ONE), 0.5))
    return add("Clip", rounded, 0.0, 255.0)


def _normalised(add: _Nodes, levels: str, made: Preprocessing) -> str:
    """Scale and shift in float32, as `bench.data.Preprocessing` does."""
    if not made.normalize:
        return add("Div", levels, np.float32(255))
    mean = np.array(made.mean, np.float32).reshape(1, -1, 1, 1)
    std = np.array(made.std, np.float32).reshape(1, -1, 1, 1)
    return add("Sub", add("Mul", levels, 1 / (255 * std)), mean / std)
