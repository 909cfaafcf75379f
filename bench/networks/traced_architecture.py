"""The architecture of a network as blocks and forks, read from one traced pass.

The pass is symbolic (`torch.fx`), on tensors that have shapes and no values. Where a tensor is
used twice, the network forks; where all paths meet again (the immediate post-dominator), it
joins. The longest path is the branch, the others are shortcuts. Only the spelling of operations
depends on classes and names, so any traceable network can be drawn.

A report rebuilds this package's own networks. Others come from elsewhere, and a report does not
run foreign code: their architecture is recorded when they are trained (`architecture.json`).
"""

from __future__ import annotations

import copy
import operator
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import networkx as nx
import torch
from pydantic import TypeAdapter
from torch import fx, nn
from torch.utils._pytree import tree_leaves

from bench.networks.paths import block_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

DOCUMENT = "architecture.json"  # of a trained run's folder

_HEAVY = ("conv", "depthwise", "pool", "connected", "attention")
_LONGEST = 36  # characters of a line


@dataclass(frozen=True)
class Fork:
    """Paths from one tensor to one operation that joins them.

    Attributes:
        branch: lines of the longest path.
        shortcuts: lines of each other path; no line for the identity.
        join: the operation that joins them, such as `+`.
    """

    branch: tuple[str, ...]
    shortcuts: tuple[tuple[str, ...], ...]
    join: str


@dataclass(frozen=True)
class Block:
    """Operations of one module of the network.

    Attributes:
        name: path of the module; for operations of the network itself `stem` at the beginning,
            `head` at the end, `(top level)` between, and `network` if there is nothing else.
        parts: lines of operations, and forks.
        shape: shape of its output, without the batch.
        count: number of such blocks in a row.
    """

    name: str
    parts: tuple[str | Fork, ...]
    shape: tuple[int, ...]
    count: int = 1

    @property
    def stage(self) -> str:
        """The module that contains it."""
        return self.name.partition(".")[0]


@dataclass(frozen=True)
class Network:
    """The content of a diagram.

    Attributes:
        input_shape: channels, height, width.
        blocks: in the order of execution; equal neighbours are one block with a count.
    """

    input_shape: tuple[int, ...]
    blocks: tuple[Block, ...]

    @classmethod
    def from_document(cls, values: dict[str, Any]) -> Network:
        """Read what `trace_to_document` returned.

        Raises:
            pydantic.ValidationError: the values are of another form.
        """
        return TypeAdapter(cls).validate_python(values)


@dataclass(frozen=True)
class _Item:
    """One operation or fork, and the block it belongs to."""

    block: str
    what: str | Fork
    shape: tuple[int, ...]


def trace(model: nn.Module, input_shape: tuple[int, ...]) -> Network:
    """Read a network, whose tensors may have no values (`torch.device("meta")`).

    Args:
        model: in evaluation mode.
        input_shape: channels, height, width.

    Raises:
        Exception: the network cannot be traced symbolically; any exception of torch or of the
            network itself.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with torch.no_grad(), device:  # where tensors are that the network creates
        module = fx.GraphModule(model, fx.Tracer().trace(model))
        module.graph.eliminate_dead_code()  # a plain block's shortcut is not used
        _Shapes(module).run(torch.zeros((1, *input_shape)))
    reader = _Reader(module)
    in_blocks = groupby(reader.items(), lambda item: item.block)
    blocks = [_block(name, list(items)) for name, items in in_blocks]
    return Network(tuple(input_shape), tuple(_repeats(_named(blocks))))


def trace_to_document(model: nn.Module, input_shape: tuple[int, ...]) -> dict[str, Any] | None:
    """Return the architecture of a network in training as JSON values; None if it is untraceable.

    Neither the network nor torch's random numbers are changed.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            return asdict(trace(copy.deepcopy(model).to("meta").eval(), input_shape))
    except Exception:  # of a foreign network; training does not depend on its diagram
        return None


class _Shapes(fx.Interpreter):
    """Find every shape; a normalisation keeps it, and is slow to run without values.

    torch's `ShapeProp` prints a traceback where the network fails.
    """

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if any(isinstance(part, torch.Tensor) for part in tree_leaves(result)):
            n.meta["shape"] = tuple(getattr(result, "shape", ()))[1:]  # none of several tensors
        return result

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        if isinstance(self.fetch_attr(target), nn.modules.batchnorm._BatchNorm):
            return args[0]
        return super().call_module(target, args, kwargs)


def _block(name: str, items: list[_Item]) -> Block:
    parts: list[str | Fork] = []
    for is_fork, run in groupby(items, lambda item: isinstance(item.what, Fork)):
        whats = [item.what for item in run]
        parts += whats if is_fork else _lines(str(what) for what in whats)
    return Block(name, tuple(parts), items[-1].shape)


def _named(blocks: list[Block]) -> Iterator[Block]:
    names = {0: "stem", len(blocks) - 1: "head"} if len(blocks) > 1 else {0: "network"}
    for number, block in enumerate(blocks):
        yield block if block.name else replace(block, name=names.get(number, "(top level)"))


def _repeats(blocks: Iterable[Block]) -> Iterator[Block]:
    """Merge equal neighbours of one stage into one block with the first one's name."""
    for _, run in groupby(blocks, lambda b: (b.stage, b.parts, b.shape)):
        alike = list(run)
        yield replace(alike[0], count=len(alike))


def _lines(operations: Iterable[str]) -> list[str]:
    """Group operations into lines of one convolution each, with what precedes or follows it."""
    lines: list[list[str]] = []
    for text in filter(None, operations):
        if not lines or _breaks(lines[-1], text):
            lines.append([])
        lines[-1].append(text)
    return [" · ".join(line) for line in lines]


def _breaks(line: list[str], text: str) -> bool:
    """Return whether *text* begins a new line: the last one is full or has its heavy operation.

    A line that begins with an activation (pre-activation) also ends with that operation.
    """
    if len(" · ".join([*line, text])) > _LONGEST:
        return True
    if not any(map(_is_heavy, line)):
        return False
    return _is_heavy(text) or not _is_heavy(line[0])


def _is_heavy(text: str) -> bool:
    return any(word in text for word in _HEAVY)


class _Reader:
    """Walks a traced graph from its input to its output, fork by fork."""

    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module
        nodes = [node for node in module.graph.nodes if _is_flow(node)]
        edges = [(node, user) for node in nodes for user in node.users if _is_flow(user)]
        self.output = nodes[-1]
        graph = nx.DiGraph(edges)
        self.graph = graph.subgraph({*nx.ancestors(graph, self.output), self.output})
        self.order = {node: place for place, node in enumerate(nodes)}
        self.joins = nx.immediate_dominators(self.graph.reverse(copy=False), self.output)

    def items(self) -> Iterator[_Item]:
        """Yield operations and forks in the order of execution."""
        node = next(node for node in self.order if node.op == "placeholder")
        while node is not self.output:
            following = self.joins[node]
            whats = self._between(node, following)
            if following is self.output:
                return
            for what in whats:
                if what:
                    yield _Item(self._container(following), what, _shape(following))
            node = following

    def _between(self, start: fx.Node, end: fx.Node) -> list[str | Fork]:
        """Return what happens on the way from *start* to the operation *end*, which is included."""
        inside = nx.descendants(self.graph, start) & nx.ancestors(self.graph, end)
        region = self.graph.subgraph({*inside, start, end})
        branch = nx.dag_longest_path(region)[1:-1]
        identity: list[list[fx.Node]] = [[]] if branch and region.has_edge(start, end) else []
        shortcuts = []
        for path in nx.weakly_connected_components(region.subgraph(inside - set(branch))):
            neighbours = {n for node in path for n in nx.all_neighbors(region, node)} - path
            if {start, end} <= neighbours:  # else a fork within the branch
                shortcuts.append(sorted(path, key=self.order.__getitem__))
        shortcuts = identity + sorted(shortcuts, key=lambda path: self.order[path[0]])
        texts = [self._text(node) for node in (*branch, end)]
        if not shortcuts:
            return list(texts)
        paths = (tuple(_lines(map(self._text, path))) for path in shortcuts)
        return [Fork(tuple(_lines(texts[:-1])), tuple(paths), texts[-1])]

    def _container(self, node: fx.Node) -> str:
        """Return the path of the block that contains an operation; empty at the top level."""
        if node.op == "call_module":
            path = str(node.target).rpartition(".")[0]
        else:
            stack = list(node.meta.get("nn_module_stack", {}).values())
            path = str(stack[-1][0]) if stack else ""
        return block_of(path)

    def _text(self, node: fx.Node) -> str:
        """Spell an operation; empty for one that computes nothing."""
        if node.op == "call_module":
            return _module_text(self.module.get_submodule(str(node.target)))
        name = node.target if isinstance(node.target, str) else node.target.__name__
        spell = _FUNCTIONS.get(name)
        if spell is None:
            return name.strip("_")
        return spell if isinstance(spell, str) else spell(node)


def _is_flow(node: fx.Node) -> bool:
    """Return whether a node is an operation on tensors: no parameter, and no shape arithmetic."""
    return node.op in {"placeholder", "output"} or (node.op != "get_attr" and "shape" in node.meta)


def _shape(node: fx.Node) -> tuple[int, ...]:
    shape: tuple[int, ...] = node.meta.get("shape", ())
    return shape


def _module_text(module: nn.Module) -> str:
    for kind, spell in _MODULES.items():
        if isinstance(module, kind):
            return spell(module)
    return type(module).__name__


def _conv(module: Any) -> str:
    kind = "depthwise" if 1 < module.groups == module.in_channels else "conv"
    return f"{_side(module.kernel_size)} {kind}, {module.out_channels}{_stride(module)}"


def _side(size: Any) -> str:
    return "×".join(map(str, size if isinstance(size, tuple) else (size, size)))


def _stride(module: Any) -> str:
    stride = module.stride[0] if isinstance(module.stride, tuple) else module.stride
    return "" if stride == 1 else f", /{stride}"


_MODULES: dict[type[nn.Module], Callable[[Any], str]] = {
    nn.Conv2d: _conv,
    nn.modules.batchnorm._BatchNorm: lambda _: "BN",
    nn.GroupNorm: lambda _: "group norm",
    nn.LayerNorm: lambda _: "layer norm",
    nn.MaxPool2d: lambda m: f"{_side(m.kernel_size)} max pool{_stride(m)}",
    nn.AvgPool2d: lambda m: f"{_side(m.kernel_size)} average pool{_stride(m)}",
    nn.AdaptiveAvgPool2d: lambda _: "average pool",
    nn.Linear: lambda m: f"fully connected, {m.out_features}",
    nn.MultiheadAttention: lambda m: f"attention, {m.num_heads} heads",
    nn.Dropout: lambda m: f"dropout {m.p:g}" if m.p else "",
    nn.Identity: lambda _: "",
    nn.Flatten: lambda _: "",
}


def _factor(node: fx.Node) -> str:
    numbers = [a for a in node.args if isinstance(a, int | float)]
    return f"× {numbers[0]:g}" if numbers else "×"


def _subtraction(node: fx.Node) -> str:
    first = node.args[0]
    return f"{first:g} - x" if isinstance(first, int | float) else "-"


def _part(node: fx.Node) -> str:
    """Spell indexing: every n-th row and column, a part, or everything."""
    before = node.args[0]
    if isinstance(before, fx.Node) and _shape(before) in {(), _shape(node)}:
        return ""  # everything, or one of several results
    indices = node.args[1] if isinstance(node.args[1], tuple) else (node.args[1],)
    steps = {i.step for i in indices if isinstance(i, slice) and i.step not in {None, 1}}
    return f"subsample, /{max(steps)}" if steps else "part"


def _padding(node: fx.Node) -> str:
    before = node.args[0]
    if isinstance(before, fx.Node) and _shape(before) == _shape(node):
        return ""
    return f"zero-pad to {_shape(node)[0]}"


def _dropout(node: fx.Node) -> str:
    """Spell dropout; without a probability that is known, or above zero, it computes nothing."""
    probability = node.args[1] if len(node.args) > 1 else node.kwargs.get("p", 0)
    return f"dropout {probability:g}" if isinstance(probability, float) and probability else ""


_LAYOUT = (
    "flatten",
    "view",
    "reshape",
    "permute",
    "transpose",
    "contiguous",
    "expand",
    "unbind",
    "chunk",
    "unflatten",
    "squeeze",
    "unsqueeze",
)
_FUNCTIONS: dict[str, str | Callable[[fx.Node], str]] = {
    operator.add.__name__: "+",
    operator.iadd.__name__: "+",
    operator.mul.__name__: _factor,
    operator.sub.__name__: _subtraction,
    operator.getitem.__name__: _part,
    "pad": _padding,
    "dropout": _dropout,
    "relu": "ReLU",
    "relu_": "ReLU",
    "gelu": "GELU",
    "silu": "SiLU",
    "batch_norm": "BN",
    "layer_norm": "layer norm",
    "cat": "concatenate",
    "concat": "concatenate",
    "adaptive_avg_pool2d": "average pool",
    "avg_pool2d": "average pool",
    "max_pool2d": "max pool",
    "scaled_dot_product_attention": "attention",
    **dict.fromkeys(_LAYOUT, ""),
}
