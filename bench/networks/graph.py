"""A network's architecture, read from the network itself: one traced pass, with shapes.

The pass is symbolic (`torch.fx`), on tensors that have shapes and no values. Where a value is
used twice, the network forks; where the two paths meet again for good (the immediate
post-dominator) it joins. The longer path is the residual branch, what lies beside it the
shortcut. Nothing is known of names or classes but how to spell an operation.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import networkx as nx
import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_BLOCK = re.compile(r"[^.]+(\.\d+)?")  # layer1.0.conv1 belongs to layer1.0
_HEAVY = ("conv", "pool", "connected")


@dataclass(frozen=True)
class Fork:
    """Two paths from one value to one sum.

    Attributes:
        branch: lines of the longer path.
        shortcut: lines of the other; empty for the identity.
        join: how they meet: `+`.
    """

    branch: tuple[str, ...]
    shortcut: tuple[str, ...]
    join: str


@dataclass(frozen=True)
class Block:
    """Operations that belong together, as the network's modules group them.

    Attributes:
        name: path of the module; `stem` or `head` for what belongs to none.
        parts: lines of operations, and forks.
        shape: of what leaves it, without the batch.
        count: how many such blocks follow each other.
    """

    name: str
    parts: tuple[str | Fork, ...]
    shape: tuple[int, ...]
    count: int = 1

    @property
    def stage(self) -> str:
        """The module that holds it and its like."""
        return self.name.partition(".")[0]


@dataclass(frozen=True)
class Network:
    """What a diagram shows.

    Attributes:
        input_shape: channels, height, width.
        blocks: in the order in which they run, equal neighbours once.
    """

    input_shape: tuple[int, ...]
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class _Item:
    """One operation, or one fork, and the block it belongs to."""

    block: str
    what: str | Fork
    shape: tuple[int, ...]


def trace(model: nn.Module, input_shape: tuple[int, ...]) -> Network:
    """Read a network whose tensors may be without values (`torch.device("meta")`).

    Args:
        model: in evaluation mode.
        input_shape: channels, height, width.

    Raises:
        Exception: the network cannot be traced symbolically; what it raises is torch's.
    """
    graph = fx.Tracer().trace(model)
    module = fx.GraphModule(model, graph)
    module.graph.eliminate_dead_code()  # a plain block's shortcut leads nowhere
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with torch.no_grad():
        _Shapes(module).propagate(torch.zeros((1, *input_shape), device=device))
    reader = _Reader(module)
    blocks = [_block(name, list(items)) for name, items in groupby(reader.items(), _block_of)]
    return Network(tuple(input_shape), tuple(_repeats(_named(blocks))))


class _Shapes(ShapeProp):
    """Finds every shape; a normalisation keeps its own, and is slow to run on none."""

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        if isinstance(self.fetch_attr(target), nn.modules.batchnorm._BatchNorm):
            return args[0]
        return super().call_module(target, args, kwargs)


def _block_of(item: _Item) -> str:
    return item.block


def _block(name: str, items: list[_Item]) -> Block:
    parts: list[str | Fork] = []
    for fork, run in groupby(items, lambda item: isinstance(item.what, Fork)):
        whats = [item.what for item in run]
        parts += whats if fork else _lines(str(what) for what in whats)
    return Block(name, tuple(parts), items[-1].shape)


def _named(blocks: list[Block]) -> Iterator[Block]:
    for number, block in enumerate(blocks):
        yield block if block.name else replace(block, name="head" if number else "stem")


def _repeats(blocks: Iterable[Block]) -> Iterator[Block]:
    """Take equal neighbours of one stage together; the first one's name stands for all."""
    for _, run in groupby(blocks, lambda b: (b.stage, b.parts, b.shape)):
        alike = list(run)
        yield replace(alike[0], count=len(alike))


def _lines(operations: Iterable[str]) -> list[str]:
    """Set operations in lines of one convolution each, with what precedes or follows it."""
    lines: list[list[str]] = []
    for text in filter(None, operations):
        if not lines or _breaks(lines[-1], text):
            lines.append([])
        lines[-1].append(text)
    return [" · ".join(line) for line in lines]


def _breaks(line: list[str], text: str) -> bool:
    """Whether *text* begins a new line: the last one has its heavy operation already.

    A line that begins with an activation (pre-activation) also ends with that operation.
    """
    if not any(map(_is_heavy, line)):
        return False
    return _is_heavy(text) or not _is_heavy(line[0])


def _is_heavy(text: str) -> bool:
    return any(word in text for word in _HEAVY)


class _Reader:
    """Walks a traced graph from its input to its output, fork by fork."""

    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module
        self.nodes = [node for node in module.graph.nodes if node.op != "get_attr"]
        self.order = {node: place for place, node in enumerate(self.nodes)}
        edges = [(node, user) for node in self.nodes for user in node.users]
        self.graph = nx.DiGraph(edges)
        self.output = self.nodes[-1]
        self.joins = nx.immediate_dominators(self.graph.reverse(copy=False), self.output)

    def items(self) -> Iterator[_Item]:
        """Operations and forks in the order in which they run."""
        node = next(node for node in self.nodes if node.op == "placeholder")
        while node is not self.output:
            users = list(node.users)
            following = users[0] if len(users) == 1 else self.joins[node]
            if following is self.output:
                return
            what = self._text(following) if len(users) == 1 else self._fork(node, following)
            if what:
                yield _Item(self._container(following), what, _shape(following))
            node = following

    def _fork(self, start: fx.Node, end: fx.Node) -> Fork:
        inside = nx.descendants(self.graph, start) & nx.ancestors(self.graph, end)
        region = self.graph.subgraph({*inside, start, end})
        longest: list[fx.Node] = nx.dag_longest_path(region)[1:-1]
        beside = sorted(inside - set(longest), key=self.order.__getitem__)
        return Fork(
            tuple(_lines(self._text(node) for node in longest)),
            tuple(_lines(self._text(node) for node in beside)),
            self._text(end),
        )

    def _container(self, node: fx.Node) -> str:
        """Path of the block that an operation belongs to; empty for the network itself."""
        if node.op == "call_module":
            path = str(node.target).rpartition(".")[0]
        else:
            stack = list(node.meta.get("nn_module_stack", {}).values())
            path = str(stack[-1][0]) if stack else ""
        found = _BLOCK.match(path)
        return found[0] if found else ""

    def _text(self, node: fx.Node) -> str:
        """Spell an operation; empty for what computes nothing."""
        if node.op == "call_module":
            return _module_text(self.module.get_submodule(str(node.target)))
        name = node.target if isinstance(node.target, str) else node.target.__name__
        spell = _FUNCTIONS.get(name)
        return spell(node) if spell else name.strip("_")


def _shape(node: fx.Node) -> tuple[int, ...]:
    shape = getattr(node.meta.get("tensor_meta"), "shape", None)
    return () if shape is None else tuple(shape[1:])


def _module_text(module: nn.Module) -> str:
    for kind, spell in _MODULES.items():
        if isinstance(module, kind):
            return spell(module)
    return type(module).__name__


def _conv(module: Any) -> str:
    return f"{_side(module.kernel_size)} conv, {module.out_channels}{_stride(module)}"


def _side(size: Any) -> str:
    return "×".join(map(str, size if isinstance(size, tuple) else (size, size)))


def _stride(module: Any) -> str:
    stride = module.stride[0] if isinstance(module.stride, tuple) else module.stride
    return "" if stride == 1 else f", /{stride}"


_MODULES: dict[type[nn.Module], Callable[[Any], str]] = {
    nn.Conv2d: _conv,
    nn.modules.batchnorm._BatchNorm: lambda _: "BN",
    nn.ReLU: lambda _: "ReLU",
    nn.MaxPool2d: lambda m: f"{_side(m.kernel_size)} max pool{_stride(m)}",
    nn.AdaptiveAvgPool2d: lambda _: "average pool",
    nn.Linear: lambda m: f"fully connected, {m.out_features}",
    nn.Dropout: lambda m: f"dropout {m.p:g}",
    nn.Identity: lambda _: "",
    nn.Flatten: lambda _: "",
}


def _factor(node: fx.Node) -> str:
    numbers = [a for a in node.args if isinstance(a, int | float)]
    return f"× {numbers[0]:g}" if numbers else "×"


def _subtraction(node: fx.Node) -> str:
    first = node.args[0]
    return f"{first:g} - x" if isinstance(first, int | float) else "-"


def _sum(node: fx.Node) -> str:
    """Spell an addition; a factor on one of the paths is an operation of its own."""
    del node
    return "+"


def _part(node: fx.Node) -> str:
    """Spell indexing: taking every n-th row and column, or everything."""
    before = node.args[0]
    if isinstance(before, fx.Node) and _shape(before) == _shape(node):
        return ""
    indices = node.args[1] if isinstance(node.args[1], tuple) else (node.args[1],)
    steps = {i.step for i in indices if isinstance(i, slice) and i.step not in {None, 1}}
    return f"subsample, /{max(steps)}" if steps else "part"


def _padding(node: fx.Node) -> str:
    before = node.args[0]
    if isinstance(before, fx.Node) and _shape(before) == _shape(node):
        return ""
    return f"zero-pad to {_shape(node)[0]}"


_FUNCTIONS: dict[str, Callable[[fx.Node], str]] = {
    operator.add.__name__: _sum,
    operator.iadd.__name__: _sum,
    operator.mul.__name__: _factor,
    operator.sub.__name__: _subtraction,
    operator.getitem.__name__: _part,
    "pad": _padding,
    "relu": lambda _: "ReLU",
    "flatten": lambda _: "",
}
