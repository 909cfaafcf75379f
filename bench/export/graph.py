"""From a PyTorch network to an ONNX graph: torch's exporter, then a clean, repeatable file."""

from __future__ import annotations

import ast
import copy
import gc
import io
import linecache
import logging
import re
import traceback
import warnings
from collections import Counter
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.errors import BenchError
from bench.export.settings import DEFAULT_OPSET

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.targets.network import LoadedNetwork

INPUT, OUTPUT = "image", "logits"
OLDEST_OPSET = 18  # torch's exporter has nothing older
_SCOPES = "pkg.torch.onnx.name_scopes"
_TORCH = Path(torch.__file__).parent
_LENGTH = 160  # of a message
_MISSING = re.compile(r"No ONNX function found for <OpOverload\(op='([\w.]+)', overload='(\w+)'")


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
    source: LoadedNetwork,
    *,
    opset: int = DEFAULT_OPSET,
    static_batch: int | None = None,
    optimize: bool = True,
) -> Traced:
    """Export a network with `torch.export`, batch norm folded where the graph permits it.

    Args:
        source: the network.
        opset: ONNX operator set.
        static_batch: the one batch size the file takes (default: any).
        optimize: let the exporter optimise the graph.

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
            # A copy: some networks keep tensors of a forward pass, which have no values here.
            model = copy_network(source.model).eval()
            captured = torch.export.export(model, (example,), dynamic_shapes=shapes, strict=False)
        except Exception as error:  # a network raises exceptions of any class
            raise _capture_error(source, error, example, dynamic=shapes is not None) from error
        try:
            program = _to_onnx(captured, example, opset, optimize=optimize)
        except Exception as error:
            raise _conversion_error(source, error) from error
    proto: onnx.ModelProto = program.model_proto
    _check_written(proto, opset, source)
    values = _values(proto)
    _clean(proto, source.model_name)
    return Traced(proto, values)


def _to_onnx(
    captured: torch.export.ExportedProgram, example: torch.Tensor, opset: int, *, optimize: bool
) -> Any:
    """Convert a captured network, avoiding the faults of torch's exporter that are known."""

    def convert(program: torch.export.ExportedProgram) -> Any:
        return torch.onnx.export(
            program, (example,), input_names=[INPUT], output_names=[OUTPUT], opset_version=opset,
            dynamo=True, verbose=False, external_data=False, optimize=optimize,
        )  # fmt: skip

    try:
        return convert(captured)
    except Exception:  # the exporter's; raised again unless attention explains it
        if not any("scaled_dot_product" in str(node.target) for node in captured.graph.nodes):
            raise
    # It cannot decompose the CPU's flash attention with a mask (torch 2.14). Decomposed here, since
    # the exporter would find flash attention's strides in a cache of torch if all sizes are fixed.
    with sdpa_kernel(SDPBackend.MATH):
        return convert(captured.run_decompositions())


def copy_network(model: nn.Module) -> nn.Module:
    """Copy a network, also one with derived tensors (`torch.nn.utils.weight_norm`)."""
    derived = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, torch.Tensor) and not value.is_leaf
    }
    return copy.deepcopy(model, derived)


def _capture_error(
    source: LoadedNetwork, error: BaseException, example: torch.Tensor, *, dynamic: bool
) -> BenchError:
    """Shorten what `torch.export` raised to one line, with the line of the network's code."""
    message, where = _first_line(error), own_line(traceback.extract_tb(error.__traceback__))
    if "specialized" in str(error) and dynamic:
        message = "it takes one batch size only"
        advice = "make its forward independent of the batch size, or give --static-batch N"
    elif "data-dependent" in message:
        advice = "remove what depends on the values of the data, or use torch.where"
    elif _runs(source, example):
        advice = "torch.export cannot capture that: use operations on tensors in its place"
    else:
        shown = "x".join(map(str, source.input_shape))
        advice = f"it does not take images of {shown}: give another --input-size"
    line = f" at {where}" if where else ""
    return BenchError(f"{source.name} cannot be exported{line}: {message}; {advice}")


def _conversion_error(source: LoadedNetwork, error: BaseException) -> BenchError:
    """Shorten what the ONNX exporter raised to one line."""
    missing = _MISSING.search(str(_deepest(error)))
    if missing:
        reason = f"torch's exporter has no ONNX form of {missing[1]}.{missing[2]}"
        return BenchError(f"{source.name} cannot be exported: {reason}; use other operators")
    return BenchError(
        f"{source.name} cannot be exported: torch's exporter fails with {_first_line(error)}; "
        "write that part with other operators"
    )


def _runs(source: LoadedNetwork, example: torch.Tensor) -> bool:
    try:
        with torch.inference_mode():
            source.model(example)
    except Exception:  # a network raises exceptions of any class
        return False
    return True


def _deepest(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _first_line(error: BaseException) -> str:
    deepest = _deepest(error)
    lines = [line for line in str(deepest).strip().splitlines() if line.strip()]
    text = f"{type(deepest).__name__}: {lines[0].strip()}" if lines else type(deepest).__name__
    return text if len(text) <= _LENGTH else text[:_LENGTH] + " …"


def own_line(frames: Sequence[traceback.FrameSummary]) -> str | None:
    """Return the innermost line of the network's own code, as `file.py:12 (code)`."""
    for frame in reversed(frames):
        path = Path(frame.filename)
        outside = path.is_relative_to(_TORCH) or path.parent == Path(__file__).parent
        if outside or not path.is_file():
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
