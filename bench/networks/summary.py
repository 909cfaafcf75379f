"""A network's layers, parameters and multiply-adds.

Multiply-adds are half of what PyTorch's own counter (`torch.utils.flop_counter`) returns for the
whole batch; it counts convolutions, matrix products and attention, not normalisations, activations
or pooling.
"""

from __future__ import annotations

import contextlib
import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parameter import is_lazy
from torch.utils.flop_counter import FlopCounterMode

from bench.errors import BenchError
from bench.models.errors import first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Shape = tuple[int, ...]

Watched = TypeVar("Watched")


@dataclass(frozen=True)
class Row:
    """One layer of the table.

    Attributes:
        layer: its name in the network; `(other)` for what belongs to none.
        kind: its class.
        output_shape: of its first output tensor, batch first; empty if it has none.
        parameters: number of values of its parameters, without those of earlier rows.
        macs: its multiply-adds.
    """

    layer: str
    kind: str
    output_shape: Shape
    parameters: int
    macs: int


@dataclass(frozen=True)
class Description:
    """A network's layers for one input, in the order they run; they add up to the totals."""

    output_shape: Shape
    rows: tuple[Row, ...]
    parameters: int
    macs: int


def describe(model: nn.Module, input_shape: Shape) -> Description:
    """Describe a network in evaluation mode layer by layer, as the book prints its shapes.

    A row is a child of the network, or a child's child where the child is a sequence (so a
    residual network shows its stem and each block). The model is left as it was.

    Args:
        model: on any device, in any mode.
        input_shape: (batch, channels, height, width).

    Raises:
        BenchError: the network cannot take such an input.
    """
    return _trace(model, input_shape, _layers)


def count_macs(model: nn.Module, input_shape: Shape) -> int:
    """Return the multiply-adds of one forward pass; arguments and errors as of `describe`."""
    return _trace(model, input_shape, lambda _: {}).macs


def count_parameters(model: nn.Module) -> int:
    """Return the number of values in the network's parameters, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def _trace(
    model: nn.Module, input_shape: Shape, layers: Callable[[nn.Module], dict[str, nn.Module]]
) -> Description:
    if not input_shape or any(isinstance(n, bool) or n < 1 for n in input_shape):
        raise BenchError(f"input {_spell(input_shape)}: every size must be at least 1")
    try:
        return on_shapes(model, lambda network: _Trace(network, layers).run(input_shape))
    except Exception as error:
        raise BenchError(
            f"{type(model).__name__} cannot take an input of {_spell(input_shape)} "
            f"(batch x channels x height x width): {first_line(error)}"
        ) from error


def on_shapes(model: nn.Module, watch: Callable[[nn.Module], Watched]) -> Watched:
    """Return what *watch* counts of a network without data, or of *model* if that is not possible.

    Shapes alone take a fraction of the time. Networks that look at values, or create tensors on
    the CPU, raise. They are watched in evaluation mode.
    """
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        # The CPU's kernels of attention are single operators, which are not counted.
        with sdpa_kernel(SDPBackend.MATH):
            with contextlib.suppress(Exception):
                return watch(without_data(model))
            with evaluation(model):
                return watch(model)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


class _Trace:
    """One forward pass, watched."""

    def __init__(
        self, model: nn.Module, layers: Callable[[nn.Module], dict[str, nn.Module]]
    ) -> None:
        self.model = model
        self.layers = layers(model)
        self.counter = FlopCounterMode(display=False)
        self.rows: dict[str, Row] = {}
        self.begun: list[tuple[str, int]] = []

    def run(self, input_shape: Shape) -> Description:
        handles = [hook for name, layer in self.layers.items() for hook in self._watch(name, layer)]
        try:
            with torch.no_grad(), self.counter:
                output = self.model(black_images(self.model, input_shape))
        finally:
            for handle in handles:
                handle.remove()
        return Description(
            output_shape=_shape(output),
            rows=(*self._with_parameters(), *self._rest()),
            parameters=count_parameters(self.model),
            macs=self.counter.get_total_flops() // 2,
        )

    def _watch(self, name: str, layer: nn.Module) -> Iterator[Any]:
        def begin(*_: object) -> None:
            self.begun.append((name, self.counter.get_total_flops()))

        def end(module: nn.Module, _: object, output: object) -> None:
            _, before = self.begun.pop()
            # A layer inside another watched one is part of that one's row.
            if self.begun:
                return
            macs = (self.counter.get_total_flops() - before) // 2
            done = self.rows.pop(name, None)
            if done is not None:  # a layer that is used again
                macs += done.macs
            self.rows[name] = Row(name, type(module).__name__, _shape(output), 0, macs)

        yield layer.register_forward_pre_hook(begin)
        yield layer.register_forward_hook(end)

    def _with_parameters(self) -> Iterator[Row]:
        """Count each row's parameters, one that two rows share in the first only."""
        seen: set[int] = set()
        for name, row in self.rows.items():
            own = {id(p): p.numel() for p in self.layers[name].parameters()}
            yield replace(row, parameters=sum(n for key, n in own.items() if key not in seen))
            seen |= own.keys()

    def _rest(self) -> Iterator[Row]:
        """Yield a row for the network's own parameters and products, if it has any."""
        parameters = count_parameters(self.model) - sum(
            r.parameters for r in self._with_parameters()
        )
        macs = self.counter.get_total_flops() // 2 - sum(r.macs for r in self.rows.values())
        if parameters or macs:
            yield Row("(other)", type(self.model).__name__, (), parameters, macs)


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return what gets a row: children, and the children of those that are sequences."""
    layers: dict[str, nn.Module] = {}
    for name, child in model.named_children():
        if isinstance(child, nn.Sequential | nn.ModuleList):
            layers |= {f"{name}.{inner}": layer for inner, layer in child.named_children()}
        else:
            layers[name] = child
    return {name: layer for name, layer in layers.items() if not isinstance(layer, nn.Identity)}


def without_data(model: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode whose tensors have shapes but no values."""
    hollow: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        if is_lazy(tensor):
            raise TypeError("a lazy network learns its shapes from real data")
        empty = torch.empty_like(tensor, device="meta")
        if isinstance(tensor, nn.Parameter):
            empty = nn.Parameter(empty, requires_grad=tensor.requires_grad)
        hollow[id(tensor)] = empty
    return copy.deepcopy(model, hollow).eval()


@contextlib.contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Put the network in evaluation mode, and back module by module."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def black_images(model: nn.Module, shape: Shape) -> torch.Tensor:
    """Return black images where the network is, in its floating-point type."""
    tensors = (*model.parameters(), *model.buffers())
    like = next((t for t in tensors if t.is_floating_point()), torch.empty(0))
    return torch.zeros(shape, dtype=like.dtype, device=like.device)


def _shape(output: object) -> Shape:
    """Return the shape of the first tensor in what a layer returned."""
    if isinstance(output, torch.Tensor):
        return tuple(output.shape)
    if isinstance(output, dict):
        output = tuple(output.values())
    if isinstance(output, list | tuple):
        return next((shape for shape in map(_shape, output) if shape), ())
    return ()


def _spell(shape: Shape) -> str:
    return "x".join(map(str, shape))
