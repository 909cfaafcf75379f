"""From a PyTorch network to an ONNX graph: torch's exporter, then a clean, repeatable file."""

from __future__ import annotations

import ast
import copy
import gc
import io
import linecache
import logging
import traceback
import warnings
from collections import Counter
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import torch

from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.targets.network import LoadedNetwork

INPUT, OUTPUT = "image", "logits"
DEFAULT_OPSET = 20  # taken by ONNX Runtime and by both TensorRT parsers
OLDEST_OPSET = 18  # torch's exporter has nothing older
_SCOPES = "pkg.torch.onnx.name_scopes"
_TORCH = Path(torch.__file__).parent
_LENGTH = 160  # of a message


@dataclass(frozen=True)
class Traced:
    """An exported graph.

    Attributes:
        proto: the ONNX model.
        values: module's path → name of the value that its last call returns, in the order of the
            graph. Modules that were folded into others are missing.
    """

    proto: onnx.ModelProto
    values: dict[str, str]


def trace(
    source: LoadedNetwork, *, opset: int = DEFAULT_OPSET, static_batch: int | None = None
) -> Traced:
    """Export a network with `torch.export`, batch norm folded where the graph permits it.

    Args:
        source: the network.
        opset: ONNX operator set.
        static_batch: the one batch size the file takes; any without.

    Returns:
        A graph from `image` (float32, N×C×H×W) to `logits` (float32, N×classes), without
        anything of this machine in it.

    Raises:
        BenchError: the network cannot be captured (torch's reason, with the line), or the
            opset cannot be written.
    """
    _check_opset(opset)
    batch = static_batch or 2  # torch.export takes a batch of one for a constant
    example = torch.zeros((batch, *source.input_shape))
    shapes = None if static_batch else ({0: torch.export.Dim("batch")},)
    with silence(), _without_collection():
        try:
            # A copy, because some networks keep tensors of their pass, here hollow ones.
            model = copy.deepcopy(source.model).eval()
            captured = torch.export.export(model, (example,), dynamic_shapes=shapes, strict=False)
        except Exception as error:  # whatever a network raises is its own
            raise _capture_error(source, error, dynamic=shapes is not None) from error
        try:
            program = torch.onnx.export(
                captured,
                (example,),
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=opset,
                dynamo=True,
                verbose=False,
                external_data=False,
            )
        except Exception as error:
            raise _capture_error(source, error, dynamic=False) from error
    assert program is not None  # noqa: S101 - it is None for another kind of export only
    proto = program.model_proto
    _check_written(proto, opset, source)
    values = _values(proto)
    _clean(proto, source.model_name)
    return Traced(proto, values)


def _capture_error(source: LoadedNetwork, error: BaseException, *, dynamic: bool) -> BenchError:
    """Shorten what `torch.export` or the ONNX exporter raised to one line, with the network's."""
    message = _first_line(error)
    where = _own_line(error)
    advice = "remove what depends on the values of the data, or use torch.where"
    if "specialized" in str(error) and dynamic:
        message = "it takes one batch size only"
        advice = "make its forward independent of the batch size, or give --static-batch N"
    elif where is None:
        advice = "rewrite that part, or export it with --opset 18 … 22"
    line = f" at {where}" if where else ""
    return BenchError(f"{source.name} cannot be exported{line}: {message}; {advice}")


def _first_line(error: BaseException) -> str:
    deepest = error
    while deepest.__cause__ is not None:
        deepest = deepest.__cause__
    lines = [line for line in str(deepest).strip().splitlines() if line.strip()]
    text = f"{type(deepest).__name__}: {lines[0].strip()}" if lines else type(deepest).__name__
    return text if len(text) <= _LENGTH else text[:_LENGTH] + " …"


def _own_line(error: BaseException) -> str | None:
    """Find the innermost line of the network's own code, as `file.py:12 (code)`."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        ours = frame.name == "trace" and path.parent.name == "export"
        if path.is_relative_to(_TORCH) or ours or not path.is_file():
            continue
        code = linecache.getline(frame.filename, frame.lineno or 0).strip()
        return f"{path.name}:{frame.lineno} ({code})"
    return None


def set_properties(proto: onnx.ModelProto, properties: dict[str, str]) -> None:
    """Replace the file's metadata properties, in order of name."""
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, dict(sorted(properties.items())))


def _check_opset(opset: int) -> None:
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise BenchError(
            f"--opset {opset} cannot be written: torch's exporter and the installed onnx take "
            f"{OLDEST_OPSET} … {newest}; use {DEFAULT_OPSET}"
        )


def _check_written(proto: onnx.ModelProto, opset: int, source: LoadedNetwork) -> None:
    """Check the opset, which the exporter changes with no more than a log line, and the names."""
    written = {entry.domain: entry.version for entry in proto.opset_import}
    if written.get("") != opset:
        raise BenchError(
            f"--opset {opset}: torch's exporter cannot write {source.name} in it and fell "
            f"back to {written.get('')}; use {DEFAULT_OPSET}"
        )
    for value in (*proto.graph.input, *proto.graph.output):
        if value.name not in {INPUT, OUTPUT} or not value.type.HasField("tensor_type"):
            raise BenchError(
                f"{source.name} has the input or output '{value.name}' beside one image and "
                "its logits: only networks from one tensor to one tensor can be exported"
            )


def _scopes(node: onnx.NodeProto) -> list[str]:
    """Return the paths of the modules that a node was traced in, outermost first."""
    for entry in node.metadata_props:
        if entry.key == _SCOPES:
            return [scope for scope in ast.literal_eval(entry.value)[:-1] if scope]
    return []


def _values(proto: onnx.ModelProto) -> dict[str, str]:
    last: dict[str, str] = {}
    for node in proto.graph.node:
        for path in _scopes(node):
            last.pop(path, None)  # later calls move a module behind
            last[path] = node.output[0]
    return last


def _clean(proto: onnx.ModelProto, name: str) -> None:
    """Name nodes after their modules, and drop traces of source lines and the machine."""
    graph = proto.graph
    graph.name = name
    used: Counter[str] = Counter()
    for node in graph.node:
        base = f"{_owner(node)}/{node.op_type}".lstrip("/")
        node.name = f"{base}_{used[base]}" if used[base] else base
        used[base] += 1
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.doc_string = ""
        if hasattr(value, "metadata_props"):
            del value.metadata_props[:]
    _name_batch(graph)
    del graph.metadata_props[:]
    graph.doc_string = proto.doc_string = ""


def _name_batch(graph: onnx.GraphProto) -> None:
    """Call the free first dimension `batch`, not by the symbol of the capture."""
    symbol = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            if symbol and dimension.dim_param == symbol:
                dimension.dim_param = "batch"


def _owner(node: onnx.NodeProto) -> str:
    """Return the path of the module a node belongs to: that of its weights, if it has any."""
    for name in node.input[1:]:
        if name.endswith(".weight"):
            return str(name).removesuffix(".weight")
    scopes = _scopes(node)
    return scopes[-1] if scopes else ""


@contextmanager
def _without_collection() -> Iterator[None]:
    """Disable garbage collection, which takes a sixth of the exporter's time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def silence() -> Iterator[None]:
    """Keep what exporters and quantisers print and log off the terminal; errors are raised."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
