"""ONNX Runtime's profile: time of each node that ran, named after the layer it was made from.

The runtime profiles its optimised graph: a convolution is fused with the activation and the
addition after it, and may be renamed after its output. Each node is mapped back to one of the
file's nodes, by its name or by that output.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from bench.measurement.profile.layer_time import LayerProfile, LayerTime, part_of_operator

_KERNEL = "_kernel_time"
_WORDS = re.compile(r"^fused |_nchwc(_\d+)?$|_token_\d+$|_quant$")
_BRANCHES = 2  # inputs of an addition
_IMAGES = 4  # dimensions of images, also of a summand; a bias has one


def profile_nodes(
    file: Path, feed: dict[str, Any], runs: int, provider: str, options: Any
) -> LayerProfile:
    """Run a file on *feed* a few times under the runtime's own profiler, in a session of its own.

    Args:
        file: an ONNX file.
        feed: inputs by name.
        runs: number of batches.
        provider: a provider whose kernels have finished when they return.
        options: of the session that was measured.

    Returns:
        Layers in the order in which they ran, and kinds of operator, with the microseconds
        of all runs.
    """
    graph = Graph(file)
    times: dict[str, float] = defaultdict(float)
    kinds: dict[str, float] = defaultdict(float)
    nodes: dict[str, dict[str, Any]] = {}
    for event in _events(file, feed, runs, provider, options):
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
            name = event["name"].removesuffix(_KERNEL)
            times[name] += event["dur"]
            kinds[event["args"]["op_name"]] += event["dur"]
            nodes.setdefault(name, event["args"])
    layers = [graph.layer(name, args, times[name]) for name, args in nodes.items()]
    return layers, list(kinds.items())


def _events(
    file: Path, feed: dict[str, Any], runs: int, provider: str, options: Any
) -> list[dict[str, Any]]:
    import onnxruntime as ort

    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(str(file), options, providers=[provider])
        for _ in range(runs):
            session.run(None, feed)
        events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text())
        return events


class Graph:
    """The nodes of an ONNX file, to which the nodes that ran are mapped back."""

    def __init__(self, file: Path) -> None:
        import onnx

        nodes = onnx.load(str(file), load_external_data=False).graph.node
        self.by_name = {node.name: node for node in nodes if node.name}
        self.makers = {output: node for node in nodes for output in node.output}
        self.readers: dict[str, list[Any]] = defaultdict(list)
        for node in nodes:
            for value in node.input:
                self.readers[value].append(node)
        self.projections = {
            node.output[0] for node in nodes if node.op_type == "Conv" and self._projects(node)
        }

    def layer(self, name: str, args: dict[str, Any], microseconds: float) -> LayerTime:
        """Return the layer and the time of a node that ran."""
        kind = args["op_name"]
        part = part_of_operator(kind)
        plain = _WORDS.sub("", name)
        own = self.by_name.get(plain) or self.makers.get(plain)
        if own is not None and part == "convolution":
            own = self._convolution(own, _weights(args))
        shapes = _shapes(args)
        fused = part == "convolution" and any(len(shape) == _IMAGES for shape in shapes[2:])
        if own is None:
            return LayerTime(name, kind, part, microseconds, fused, block=kind)
        if own.output[0] in self.projections:
            part, kind = "projection", f"{kind} on the shortcut"
        path = own.name.partition("/")[0] or own.name
        return LayerTime(path, kind, part, microseconds, fused)

    def _convolution(self, node: Any, weights: list[int] | None) -> Any:
        """Search backwards from the output of a fused convolution for the convolution itself."""
        waiting = [node]
        while waiting:
            found = waiting.pop(0)
            if found.op_type == "Conv":
                if weights is None or self._kernel(found) in {None, tuple(weights[2:])}:
                    return found
                continue
            sources = [self.makers.get(value) for value in found.input]
            waiting += [source for source in sources if source is not None]
        return node

    @staticmethod
    def _kernel(node: Any) -> tuple[int, ...] | None:
        for attribute in node.attribute:
            if attribute.name == "kernel_shape":
                return tuple(attribute.ints)
        return None

    def _projects(self, node: Any) -> bool:
        """Return whether a 1×1 convolution leads into an addition and shares its input."""
        if self._kernel(node) != (1, 1) or len(self._real_readers(node.input[0])) < _BRANCHES:
            return False
        following = self._real_readers(node.output[0])
        while len(following) == 1 and following[0].op_type == "BatchNormalization":
            following = self._real_readers(following[0].output[0])
        return len(following) == 1 and following[0].op_type == "Add"

    def _real_readers(self, value: str) -> list[Any]:
        """Return the nodes that read a value, also those behind a quantisation."""
        found = []
        for node in self.readers[value]:
            if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
                found += self._real_readers(node.output[0])
            else:
                found.append(node)
        return found


def _weights(args: dict[str, Any]) -> list[int] | None:
    """Return the dimensions of a convolution's weights, where the profiler reports them."""
    shapes = _shapes(args)
    return shapes[1] if len(shapes) > 1 and len(shapes[1]) == _IMAGES else None


def _shapes(args: dict[str, Any]) -> list[list[int]]:
    """Return the dimensions of a node's inputs; the profiler leaves out absent ones."""
    return [next(iter(entry.values())) for entry in args.get("input_type_shape", ())]
