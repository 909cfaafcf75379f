"""A network's blocks: found, dropped, swapped, and watched, and all put back afterwards."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bench.errors import BenchError
from bench.models import ResidualBlock

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Place:
    """Where one block stands.

    Attributes:
        name: its path in the network, such as `layer2.0`.
        parent: the stage that holds it.
        key: its name there.
        block: the block itself.
    """

    name: str
    parent: nn.Module
    key: str
    block: ResidualBlock

    @property
    def keeps_shape(self) -> bool:
        """Whether its output has its input's shape, so that another may stand in its place."""
        entering, leaving, stride = _shape(self.block)
        return (entering, stride) == (leaving, 1)


class Dropped(nn.Module):
    """A block without its branch: what its shortcut carries, and what follows the addition.

    The sum becomes h(x) + 0 (times the shortcut's scale, where it has one). A plain block has no
    shortcut: where shapes allow, its input passes unchanged; where they do not, it is subsampled,
    and channels it lacks are zero (option A of He et al. 2016a), as in Veit et al. 2016,
    section 4.1, where VGG's layers are deleted.
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
        with _branch_of_zeros(self.block):
            output: Tensor = self.block(x)
        return output


@contextmanager
def _branch_of_zeros(block: ResidualBlock) -> Iterator[None]:
    """Make what enters the addition from the branch zero."""
    handle = block.join.register_forward_pre_hook(
        lambda _, inputs: (inputs[0], inputs[1], torch.zeros_like(inputs[2]))
    )
    try:
        yield
    finally:
        handle.remove()


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
    """Put a block's shortcut in its place, for a while."""
    with _replaced(place, Dropped(place.block, _plain_stand_in(place.block))):
        yield


@contextmanager
def swapped(first: Place, second: Place) -> Iterator[None]:
    """Let two blocks of one shape change places, for a while."""
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
    """Channels that enter the block, channels that leave it, and its stride."""
    convolutions: list[Any] = [
        getattr(block, step) for step in block.branch_steps if step.startswith("conv")
    ]
    stride = max(convolution.stride[0] for convolution in convolutions)
    return convolutions[0].in_channels, convolutions[-1].out_channels, stride


def _plain_stand_in(block: ResidualBlock) -> nn.Module | None:
    """Return what passes a plain block's input on; None where the block has a shortcut."""
    from bench.models.shortcuts import NoShortcut, ZeroPad

    if not isinstance(block.join, NoShortcut):
        return None
    entering, leaving, stride = _shape(block)
    if (entering, stride) == (leaving, 1):
        return nn.Identity()
    return ZeroPad(entering, leaving, stride)


@contextmanager
def norm_ratios(places: list[Place]) -> Iterator[dict[str, list[Tensor]]]:
    """Record ‖F(x)‖ / ‖h(x)‖ of every block and image that passes, by the block's name.

    Both as they enter the addition: F the residual branch, h what the shortcut carries. Plain
    blocks, which add nothing, record nothing.
    """
    from bench.models.shortcuts import NoShortcut

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
