"""ONNX files, whoever made them: what a given one takes and costs."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch.nn.functional as F
from onnx import TensorProto, inliner
from onnx.external_data_helper import load_external_data_for_model
from onnx.shape_inference import InferenceError

from bench.errors import BenchError
from bench.export.files import inputs_of, load, precision_of
from bench.export.preprocess import PREFIX
from bench.export.session import open_session, with_outputs
from bench.networks.memory_traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt
    from torch import Tensor

    from bench.data import Preprocessing

Shape = tuple[int, ...]
Size = tuple[int, int]

_IMAGE_RANK = 4
_CHANNELS = (1, 3, 4)  # of images whose channels are recognised where they stand last
_TYPES = {
    TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.DOUBLE: "float64",
    TensorProto.UINT8: "uint8", TensorProto.INT8: "int8", TensorProto.UINT16: "uint16",
    TensorProto.INT16: "int16", TensorProto.INT32: "int32", TensorProto.INT64: "int64",
}  # fmt: skip


@dataclass(frozen=True)
class ImageInput:
    """The images that an ONNX file takes.

    Attributes:
        input_shape: sizes of an image in the file's own order: C×H×W, or H×W×C if `channels_last`.
        channels_last: whether the channels stand last.
        input_type: element type of the images, such as float32 or uint8.
        static_batch: the one batch size it takes; None for any.
    """

    input_shape: tuple[int, int, int]
    channels_last: bool
    input_type: str
    static_batch: int | None

    @property
    def channels_first(self) -> tuple[int, int, int]:
        """Sizes of an image as C×H×W, whatever the file's order."""
        first, second, third = self.input_shape
        return (third, first, second) if self.channels_last else self.input_shape

    @property
    def takes_floats(self) -> bool:
        """Whether the images are real numbers, not grey levels."""
        return self.input_type.startswith("float")

    def feed(self, images: Tensor, preprocessing: Preprocessing) -> npt.NDArray[Any]:
        """Turn uint8 images N×C×H×W into the file's input."""
        prepared = preprocessing.apply(images)
        sides, antialias = self.channels_first[1:], preprocessing.antialias
        if prepared.shape[2:] != sides:  # of a file whose images are not square
            prepared = F.interpolate(prepared, sides, mode="bilinear", antialias=antialias)
        return self.arrange(prepared if self.takes_floats else prepared * 255)

    def arrange(self, images: Tensor) -> npt.NDArray[Any]:
        """Give float images N×C×H×W the file's order of dimensions and its type."""
        if self.channels_last:
            images = images.permute(0, 2, 3, 1)
        if not self.takes_floats:
            images = images.round().clamp(0, 127 if self.input_type == "int8" else 255)
        return np.ascontiguousarray(images.numpy().astype(self.input_type))


@dataclass(frozen=True)
class FileFacts(ImageInput):
    """What an ONNX file says of itself.

    Attributes:
        precision: of its weights: fp32, fp16, bf16 or fp64; int8 with quantised operators.
        macs: multiply-adds of one image in convolutions and matrix products; None where they
            cannot be counted.
        traffic: what these read and write; None likewise.
    """

    precision: str
    macs: int | None
    traffic: Traffic | None


def examine(path: Path, size: Size | None = None) -> FileFacts:
    """Read what a file takes, and count what it costs on images of *size* (height, width).

    Raises:
        BenchError: it is not a valid ONNX file, takes something else than one batch of images, or
            images of another size; or it takes any size, and none is given.
    """
    graph = load(path).graph
    images = image_input(path, graph, size)
    name = _images(path, graph).name
    macs, traffic = _count(path, name, (images.static_batch or 1, *images.input_shape))
    return FileFacts(**asdict(images), precision=precision_of(graph), macs=macs, traffic=traffic)


def image_input(path: Path, graph: Any, size: Size | None = None) -> ImageInput:
    """Read which images a file with this graph takes; arguments and errors as of `examine`."""
    entry = _images(path, graph)
    tensor = entry.type.tensor_type
    if tensor.elem_type not in _TYPES:
        kind = TensorProto.DataType.Name(tensor.elem_type).lower()
        raise BenchError(
            f"{path} takes {entry.name} of type {kind}; export it with one of "
            f"{', '.join(_TYPES.values())}"
        )
    batch, *sides = [d.dim_value or None for d in tensor.shape.dim] or [None]
    shape, channels_last = image_shape(path, (batch, *sides), size)
    return ImageInput(shape, channels_last, _TYPES[tensor.elem_type], batch)


def image_shape(
    path: Path, dimensions: Sequence[int | None], size: Size | None
) -> tuple[tuple[int, int, int], bool]:
    """Return the sizes of an image in a file's own order, and whether the channels stand last.

    Args:
        path: the file.
        dimensions: of its input, N first; None for those it leaves open.
        size: height and width for those.

    Raises:
        BenchError: these are no images, or not of this size.
    """
    shown = "×".join(str(d or "?") for d in dimensions)
    if len(dimensions) != _IMAGE_RANK:
        raise BenchError(
            f"{path} takes an input of {shown}; what can be measured is images, N×C×H×W or N×H×W×C"
        )
    first, last = dimensions[1], dimensions[3]
    channels_last = first not in _CHANNELS and last in _CHANNELS
    _, *sides = dimensions
    channels, height, width = (last, *sides[:2]) if channels_last else sides
    if channels is None:
        raise BenchError(
            f"{path} takes images of {shown} and does not say how many channels they have: "
            "export it with a fixed number of channels"
        )
    if size is not None and (height not in {None, size[0]} or width not in {None, size[1]}):
        made = spell_size((height, width))
        raise BenchError(f"--input-size {spell_size(size)}: {path} was made for {made}")
    if size is None and (height is None or width is None):
        raise BenchError(
            f"{path} takes images of any size ({shown}): choose one with --input-size H or HxW"
        )
    height, width = size or (height, width)
    assert height and width  # noqa: S101, PT018 - checked above, for the types
    shape = (height, width, channels) if channels_last else (channels, height, width)
    return shape, channels_last


def open_shape(path: Path, graph: Any, size: Size | None) -> Shape | None:
    """Return the sizes of an image for a file that leaves some of them open; None for others.

    Raises:
        BenchError: it takes images of another size; or of any, and none is given.
    """
    inputs = inputs_of(graph)
    sides = [d.dim_value or None for d in inputs[0].type.tensor_type.shape.dim] if inputs else []
    if len(inputs) != 1 or (size is None and None not in sides[1:]):
        return None
    shape, _ = image_shape(path, sides, size)
    return shape if None in sides[1:] else None


def static_batch_of(graph: Any) -> int | None:
    """Return the one batch size that a graph takes; None for any."""
    dimensions = [i.type.tensor_type.shape.dim for i in inputs_of(graph)[:1]]
    return next((dims[0].dim_value or None for dims in dimensions if dims), None)


def opset_of(proto: onnx.ModelProto) -> int:
    """Return the version of the standard operator set; 0 for a file without one."""
    return next((entry.version for entry in proto.opset_import if entry.domain in _STANDARD), 0)


def spell_size(size: tuple[int | None, int | None]) -> str:
    """Write a height and width as `--input-size` takes them: 224, or 64x256."""
    height, width = ("?" if side is None else str(side) for side in size)
    return height if height == width else f"{height}x{width}"


def _images(path: Path, graph: Any) -> Any:
    """Return a graph's one input."""
    inputs = inputs_of(graph)
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs)
        raise BenchError(
            f"{path} has {len(inputs)} inputs ({names}); one of images is measured: export the "
            "network with the others fixed"
        )
    if not inputs[0].type.HasField("tensor_type"):
        raise BenchError(f"{path} takes {inputs[0].name}, which is no tensor of images")
    return inputs[0]


# Operator → places of image, weights and bias among its inputs.
_OPERANDS = {
    "Conv": (0, 1, 2), "FusedConv": (0, 1, 2), "ConvTranspose": (0, 1, 2), "ConvInteger": (0, 1),
    "QLinearConv": (0, 3, 8), "Gemm": (0, 1, 2), "FusedGemm": (0, 1, 2), "QGemm": (0, 3, 6),
    "MatMul": (0, 1), "FusedMatMul": (0, 1), "MatMulInteger": (0, 1), "QLinearMatMul": (0, 3),
    "DynamicQuantizeMatMul": (0, 1), "MatMulIntegerToFloat": (0, 1),
}  # fmt: skip
# Others that multiply and add, and what a domain of its own may define, are not counted.
_UNCOUNTED = re.compile("Conv|MatMul|Gemm|Attention|LSTM|GRU|RNN|Einsum|MoE")
_STANDARD = {"", "ai.onnx"}
_DOMAINS = {*_STANDARD, "ai.onnx.ml", "com.microsoft"}


class _UncountedError(Exception):
    """The graph has an operator or a shape that is not known."""


def _count(path: Path, name: str, images: Shape) -> tuple[int | None, Traffic | None]:
    """Count the multiply-adds and the traffic of one image, from a batch of shape *images*."""
    try:
        model = inliner.inline_local_functions(onnx.load(str(path), load_external_data=False))
        entry = next(value for value in model.graph.input if value.name == name)
        for dimension, side in zip(entry.type.tensor_type.shape.dim, images, strict=True):
            dimension.dim_value = side
        nodes = _counted(model.graph)
        shapes = _shapes(model, path, nodes, images)
        macs = sum(_macs_of(node, shapes) for node in nodes)
    except (_UncountedError, InferenceError, IndexError, ValueError, RuntimeError):
        return None, None  # a count would be wrong
    return macs // images[0], _traffic(nodes, shapes, _fixed(model.graph), images[0])


def _counted(graph: Any) -> list[Any]:
    """Return the nodes whose multiply-adds are counted.

    Raises:
        _UncountedError: others may have some, too.
    """
    found = []
    for node in graph.node:
        if node.name.startswith(PREFIX):
            continue  # resizes images, which is not the network's work
        if node.op_type in _OPERANDS and node.domain in _DOMAINS:
            found.append(node)
        elif node.domain not in _DOMAINS or _UNCOUNTED.search(node.op_type):
            raise _UncountedError
        for attribute in node.attribute:  # the branches of an If, the body of a Loop
            if any(map(_counted, (attribute.g, *attribute.graphs))):
                raise _UncountedError
    return found


def _operands(node: Any) -> list[str]:
    places = [place for place in _OPERANDS[node.op_type] if place < len(node.input)]
    return [node.input[place] for place in places if node.input[place]]


def _shapes(model: Any, path: Path, nodes: Sequence[Any], images: Shape) -> dict[str, Shape]:
    """Return the shapes of what the nodes read and write.

    Where ONNX's inference leaves one open (sizes that the graph computes, operators of another
    domain), the file is run once and all of them are read back.

    Raises:
        _UncountedError: it cannot be run either.
    """
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    known = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        tensor = value.type.tensor_type
        sides = tuple(d.dim_value for d in tensor.shape.dim)
        if tensor.HasField("shape") and all(sides):
            known.setdefault(value.name, sides)
    wanted = {name for node in nodes for name in (*_operands(node), node.output[0])}
    unknown = sorted(wanted - known.keys())
    return known | _run_for_shapes(path, model, unknown, images) if unknown else known


def _run_for_shapes(
    path: Path, model: Any, names: Sequence[str], images: Shape
) -> dict[str, Shape]:
    try:
        load_external_data_for_model(model, str(path.parent))
        session = open_session(with_outputs(model, names), threads=1, optimize=False)
        entry = _images(path, model.graph)
        feed = {entry.name: np.zeros(images, _TYPES[entry.type.tensor_type.elem_type])}
        values = session.run(list(names), feed)
    except Exception as error:  # whatever is wrong with it, nothing is counted
        raise _UncountedError from error
    return {name: np.shape(value) for name, value in zip(names, values, strict=True)}


def _macs_of(node: Any, shapes: dict[str, Shape]) -> int:
    """Return a node's multiply-adds for the whole batch."""
    image, weight = (shapes[name] for name in _operands(node)[:2])
    output = shapes[node.output[0]]
    if node.op_type == "ConvTranspose":
        return math.prod(image) * math.prod(weight[1:])
    if "Conv" in node.op_type:
        return math.prod(output) * math.prod(weight[1:])
    if "Gemm" in node.op_type:
        return output[0] * math.prod(weight)
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return math.prod(output) * image[-2 if transposed else -1]


def _fixed(graph: Any) -> set[str]:
    """Return the names of all values that do not depend on the images."""
    fixed = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if all(name in fixed for name in node.input if name):
            fixed |= set(node.output)
    return fixed


def _traffic(
    nodes: Sequence[Any], shapes: dict[str, Shape], fixed: set[str], batch: int
) -> Traffic:
    """Return what these nodes read and write (`bench.networks.memory_traffic`)."""
    weights = activations = 0
    for node in nodes:
        names = _operands(node)
        weights += sum(math.prod(shapes[name]) for name in names if name in fixed)
        images = [*(name for name in names if name not in fixed), node.output[0]]
        activations += sum(math.prod(shapes[name]) for name in images)
    return Traffic(weights, activations // batch)
