"""Finding a network's residual blocks, dropping or swapping some for a while, and watching them."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bench.errors import BenchError
from bench.models import ResidualBlock
from bench.models.shortcuts import NoShortcut, ZeroPad

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Place:
    """A residual block and where it is.

    Attributes:
        name: path in the network, such as `layer2.0`.
        parent: the module that holds it.
        key: its name in *parent*.
        block: the block itself.
    """

    name: str
    parent: nn.Module
    key: str
    block: ResidualBlock

    @property
    def keeps_shape(self) -> bool:
        """Whether its output has its input's shape, so that another block can replace it."""
        entering, leaving, stride = _shape(self.block)
        return (entering, stride) == (leaving, 1)


class Dropped(nn.Module):
    """A block without its branch: the sum becomes h(x) + 0, and what follows it stays.

    A plain block has no shortcut: its input passes unchanged or, where the shape changes, is
    subsampled, with zeros for the channels it lacks (option A of He et al. 2016a), as when Veit et
    al. 2016, section 4.1, delete layers of VGG.
    """

    def __init__(self, block: ResidualBlock, plain: nn.Module | None) -> None:
        super().__init__()
        self.block = block
        self.plain = plain

    def forward(self, x: Tensor) -> Tensor:
        """Map the block's input to its output shape."""
        if self.plain is not None:
            passed: Tensor = self.plain(x)
            return passed
        handle = self.block.join.register_forward_pre_hook(
            lambda _, inputs: (inputs[0], inputs[1], torch.zeros_like(inputs[2]))
        )
        try:
            output: Tensor = self.block(x)
        finally:
            handle.remove()
        return output


def find_blocks(model: nn.Module, called: str) -> list[Place]:
    """List the residual (or plain) blocks of a network of the residual families, in order.

    Raises:
        BenchError: it has none.
    """
    places = []
    for name, module in model.named_modules():
        if isinstance(module, ResidualBlock):
            parent, _, key = name.rpartition(".")
            places.append(Place(name, model.get_submodule(parent), key, module))
    if not places:
        raise BenchError(
            f"{called} has no block whose shortcut could stand in its place; take a network of "
            "the residual families (resnetN, preact_resnetN, plainN)"
        )
    return places


@contextmanager
def dropped(place: Place) -> Iterator[None]:
    """Replace a block by its shortcut for the duration of a `with` block."""
    with _replaced(place, Dropped(place.block, _plain_stand_in(place.block))):
        yield


@contextmanager
def swapped(first: Place, second: Place) -> Iterator[None]:
    """Swap two blocks of one shape for the duration of a `with` block."""
    with _replaced(first, second.block), _replaced(second, first.block):
        yield


@contextmanager
def _replaced(place: Place, module: nn.Module) -> Iterator[None]:
    setattr(place.parent, place.key, module)
    try:
        yield
    finally:
        setattr(place.parent, place.key, place.block)


def _shape(block: ResidualBlock) -> tuple[int, int, int]:
    """Return a block's input channels, output channels and stride."""
    convolutions: list[Any] = [
        getattr(block, step) for step in block.branch_steps if step.startswith("conv")
    ]
    stride = max(convolution.stride[0] for convolution in convolutions)
    return convolutions[0].in_channels, convolutions[-1].out_channels, stride


def _plain_stand_in(block: ResidualBlock) -> nn.Module | None:
    """Return what passes a plain block's input on; None where the block has a shortcut."""
    if not isinstance(block.join, NoShortcut):
        return None
    entering, leaving, stride = _shape(block)
    return (
        nn.Identity() if (entering, stride) == (leaving, 1) else ZeroPad(entering, leaving, stride)
    )


@contextmanager
def norm_ratios(places: list[Place]) -> Iterator[dict[str, list[Tensor]]]:
    """Record ‖F(x)‖ / ‖h(x)‖ of every block, by name, for each image that passes.

    F is the residual branch and h the shortcut as they meet, before the shortcut's scale, gate or
    dropout acts on them. Plain blocks record nothing.
    """
    ratios: dict[str, list[Tensor]] = {place.name: [] for place in places}

    def watch(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, Tensor, Tensor]) -> None:
            shortcut, residual = (t.detach().float().flatten(1).norm(dim=1) for t in inputs[1:])
            ratios[name].append((residual / shortcut).cpu())

        return hook

    handles = [
        place.block.join.register_forward_pre_hook(watch(place.name))
        for place in places
        if not isinstance(place.block.join, NoShortcut)
    ]
    try:
        yield ratios
    finally:
        for handle in handles:
            handle.remove()
