"""Widening a residual network by copying channels, so that it computes what it did.

Chen et al. 2016, "Net2Net: Accelerating Learning via Knowledge Transfer" (arXiv:1511.05641),
section 2.2. Every new channel is a copy of an old one, and a layer that reads the copies divides
its old weight among them. The shares are unequal, so that copies get different gradients and
diverge (the paper adds noise instead, which changes the function a little). All layers that read
or write the stream between the blocks copy the same channels of it, and zero-padding shortcuts
(option A) find the channels that they fill where they were.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bench.data.splits import stable_seed
from bench.errors import BenchError
from bench.models import ResidualBlock, ResNet, ResNetConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

LEAST_SHARE, MOST_SHARE = 0.5, 1.5  # before they are made to sum to one


@dataclass
class _Widening:
    """The old and new tensors of one network, and the random seed of the shares."""

    old: dict[str, Tensor]
    seed: int
    new: dict[str, Tensor]

    def convolution(self, name: str, rows: Tensor, columns: Tensor) -> None:
        """Copy output channels *rows*, and share the weights of input channels *columns*."""
        weight = self.old[f"{name}.weight"]
        shares = self._shares(name, len(rows), columns, weight.shape[1])
        wide = weight.index_select(0, rows).index_select(1, columns)
        self.new[f"{name}.weight"] = wide * shares.view(*shares.shape, *[1] * (weight.ndim - 2))
        if f"{name}.bias" in self.old:
            self.new[f"{name}.bias"] = self.old[f"{name}.bias"].index_select(0, rows)

    def normalisation(self, name: str, channels: Tensor) -> None:
        """Copy the statistics, scales and shifts of *channels*."""
        for kind in ("weight", "bias", "running_mean", "running_var"):
            self.new[f"{name}.{kind}"] = self.old[f"{name}.{kind}"].index_select(0, channels)
        count = f"{name}.num_batches_tracked"
        self.new[count] = self.old[count]

    def _shares(self, name: str, rows: int, columns: Tensor, old: int) -> Tensor:
        """Return rows × columns, summing to one over the copies of each old channel."""
        generator = torch.Generator().manual_seed(stable_seed("widen", self.seed, name))
        drawn = torch.empty(rows, len(columns), dtype=torch.float64)
        drawn.uniform_(LEAST_SHARE, MOST_SHARE, generator=generator)
        sums = torch.zeros(rows, old, dtype=torch.float64).index_add_(1, columns, drawn)
        return (drawn / sums.index_select(1, columns)).float()


def widen(model: ResNet, wide: ResNetConfig, *, seed: int) -> dict[str, Tensor]:
    """Return the state dict of a network like *model*, on the CPU, with *wide*'s larger `width`.

    It computes the same function up to rounding: in evaluation mode, and in training mode
    too, since copies have the same batch statistics (dropout on shortcuts excepted).
    """
    work = _Widening(model.state_dict(), seed, {})
    stream = _copies(model.config.width, wide.width)
    image = torch.arange(model.conv1.in_channels)
    work.convolution("conv1", stream, image)
    work.normalisation("bn1", stream)
    for path, block, inner in _blocks(model, wide):
        stream = _widen_block(work, path, block, inner, stream)
    for name, module in model.final.named_children():
        if isinstance(module, nn.BatchNorm2d):
            work.normalisation(f"final.{name}", stream)
    work.convolution("fc", torch.arange(model.fc.out_features), stream)
    return work.new


def _blocks(model: ResNet, wide: ResNetConfig) -> Iterator[tuple[str, ResidualBlock, int]]:
    """Yield every block with its path and the new width of its 3×3 convolutions."""
    for number, stage in enumerate(model.stages):
        for position, block in enumerate(stage):
            assert isinstance(block, ResidualBlock)  # noqa: S101 - stages hold nothing else
            yield f"layer{number + 1}.{position}", block, wide.width * 2**number


def _widen_block(
    work: _Widening, path: str, block: ResidualBlock, inner: int, stream: Tensor
) -> Tensor:
    """Widen one block, and return the channels of the stream behind it."""
    convolutions = {
        name: module
        for name, module in block.named_children()
        if isinstance(module, nn.Conv2d) and name.startswith("conv")
    }
    first, *_, last = convolutions.values()
    leaving = _leaving(stream, first.in_channels, last.out_channels, inner * block.expansion)
    entering = stream
    for number, (name, module) in enumerate(convolutions.items(), 1):
        ends = number == len(convolutions)
        behind = leaving if ends else _copies(module.out_channels, inner)
        work.convolution(f"{path}.{name}", behind, entering)
        norm = getattr(block, f"bn{number}", None)
        if norm is not None:  # it has its convolution's input channels ahead of it, or its output's
            before = block.branch_steps[: block.branch_steps.index(name)]
            ahead = f"bn{number}" in (*block.enter_steps, *before)
            work.normalisation(f"{path}.bn{number}", entering if ahead else behind)
        entering = behind
    for name, other in block.named_modules():
        if name.startswith(("downsample.", "join.")):
            if isinstance(other, nn.Conv2d):
                work.convolution(f"{path}.{name}", leaving, stream)
            elif isinstance(other, nn.BatchNorm2d):
                work.normalisation(f"{path}.{name}", leaving)
    return leaving


def _leaving(stream: Tensor, enters: int, leaves: int, wide: int) -> Tensor:
    """Copy the stream's channels behind a block: those it had, then those it adds."""
    if leaves == enters:
        return stream
    added = _copies(leaves - enters, wide - len(stream))
    return torch.cat((stream, enters + added))


def _copies(old: int, new: int) -> Tensor:
    """Return which of *old* channels each of *new* ones copies: all once, then again in turn."""
    return torch.arange(new) % old


@torch.no_grad()
def transplant(parent: ResNet, child: ResNet, *, seed: int) -> int:
    """Make *child* compute *parent*'s function; return the number of tensors it takes over.

    Layers of the same name take the parent's weights, widened if the child is wider. A block that
    the parent lacks keeps its initial weights except the last of its branch, which become zero:
    the scale and shift of the final normalisation, or the last convolution if there is none
    (`preact`).
    """
    wide = child.config.width > parent.config.width
    config = replace(parent.config, width=child.config.width)
    tensors = widen(parent, config, seed=seed) if wide else parent.state_dict()
    own: dict[str, Tensor] = child.state_dict()
    odd = [k for k, v in tensors.items() if k not in own or own[k].shape != v.shape]
    if odd:
        raise BenchError(f"the grown network has no {odd[0]} of the parent's shape")
    own.update(tensors)
    child.load_state_dict(own)
    for path, block in child.named_modules():
        if isinstance(block, ResidualBlock) and f"{path}.conv1.weight" not in tensors:
            block.zero_residual()
    return len(tensors)
