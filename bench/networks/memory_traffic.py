"""The memory traffic of a network, for a roofline.

Williams, Waterman and Patterson, "Roofline" (CACM 52(4), 2009), set attained FLOP/s against
arithmetic intensity, the FLOPs per byte moved. The real traffic depends on caches and on which
operators a runtime fuses, and needs hardware counters. Counted here is what follows from the
network alone, so that all runtimes of a network at one batch size and precision have the same
intensity:

- each layer that multiplies and adds (convolutions and matrix products, the layers whose
  multiply-adds are counted) reads its input and its weights once and writes its output once;
- weights and biases are read once a batch, activations once for each of its images;
- everything between these layers (normalisation, activation, pooling, the addition of the
  shortcut) counts as fused into them and moves nothing.

Operators that are not fused move more; a cache that holds activations or weights moves less.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from bench.networks.summary import black_images, on_shapes

if TYPE_CHECKING:
    from torch import nn

VALUE_BYTES = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2, "int8": 1}


@dataclass(frozen=True)
class Traffic:
    """Values that one forward pass reads and writes, as the module's docstring counts them.

    Attributes:
        weights: weights and biases, once a batch.
        activations: inputs and outputs of the counted layers, for one image.
        first: the first of these layers alone, which takes the images; None if not known.
    """

    weights: int
    activations: int
    first: Traffic | None = field(default=None, compare=False)

    def bytes_moved(self, batch_size: int, precision: str) -> int | None:
        """Return the bytes of one batch; None where a value's size in *precision* is unknown."""
        size = VALUE_BYTES.get(precision)
        return None if size is None else size * (self.weights + batch_size * self.activations)


def count_traffic(model: nn.Module, shape: tuple[int, ...]) -> Traffic:
    """Count by forward passes in evaluation mode, on shapes alone where the network allows it.

    Two passes, of one and of two images, separate what is read once per batch from what is read
    once per image. The model is left as it was.

    Args:
        model: on any device, in any mode.
        shape: channels, height, width.
    """
    one, two = (_values(model, (batch, *shape)) for batch in (1, 2))
    first = _split(one[0], two[0]) if one else None
    whole = _split(sum(one), sum(two))
    return Traffic(whole.weights, whole.activations, first)


def _split(one: int, two: int) -> Traffic:
    """Return the traffic that moves so many values for one image, and for two."""
    return Traffic(weights=2 * one - two, activations=two - one)


def _values(model: nn.Module, shape: tuple[int, ...]) -> list[int]:
    """Return the values that each counted layer reads and writes."""

    def watch(network: nn.Module) -> list[int]:
        with torch.no_grad(), _Watcher() as watcher:
            network(black_images(network, shape))
        values: list[int] = watcher.values
        return values

    return on_shapes(model, watch)


class _Watcher(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the values that go into and out of each operator whose FLOPs are counted."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.values: list[int] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        del types
        output = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            leaves = tree_leaves((args, output))
            self.values.append(sum(t.numel() for t in leaves if isinstance(t, torch.Tensor)))
        return output
