"""The residual block, basic and bottleneck, in every activation order.

He et al. 2016a (arXiv:1512.03385), figure 5; He et al. 2016b (arXiv:1603.05027), figure 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from .normalisation import BranchScale, make_norm
from .shortcuts import make_join, make_shortcut

if TYPE_CHECKING:
    from .config import ResNetConfig


@dataclass(frozen=True)
class Order:
    """Where normalisation and ReLU stand, read along the residual branch.

    Attributes:
        before: ahead of each convolution.
        after: behind each convolution but the last.
        last: behind the last convolution, ahead of the addition.
        leave: behind the addition.
    """

    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    last: tuple[str, ...] = ()
    leave: tuple[str, ...] = ()


BN_RELU = ("bn", "relu")

# He et al. 2016b, figure 4, in its order. Only (b) differs from (a) in what the shortcut
# passes through after the addition; (d) and (e) leave it untouched.
ORDERS: dict[str, Order] = {
    "post": Order(after=BN_RELU, last=("bn",), leave=("relu",)),
    "bn_after_add": Order(after=BN_RELU, leave=BN_RELU),
    "relu_before_add": Order(after=BN_RELU, last=BN_RELU),
    "relu_preact": Order(before=("relu",), after=("bn",), last=("bn",)),
    "preact": Order(before=BN_RELU),
}


class ResidualBlock(nn.Module):
    """x ↦ leave(join(x, shortcut(x), branch(enter(x)))).

    What stands ahead of the first convolution (`enter`; only the pre-activation orders
    have it) is shared with the shortcut wherever that is not the identity: He et al. 2016b,
    appendix, "these projection shortcuts are also with pre-activation". An identity
    shortcut carries x itself.

    Maps (n, in_channels, h, w) to (n, width x expansion, ⌈h / stride⌉, ⌈w / stride⌉).

    Args:
        config: activation order, kind of shortcut, and their numbers.
        in_channels: channels of the input.
        width: channels of the 3x3 convolutions.
        stride: of the block; the bottleneck has it in its 3x3 convolution ("v1.5").
        entered: the input has passed the first activation already. In He et
            al. 2016b, appendix, the first unit's stands right behind the stem's convolution.
    """

    expansion = 1

    def __init__(
        self,
        config: ResNetConfig,
        in_channels: int,
        width: int,
        stride: int = 1,
        *,
        entered: bool = False,
    ) -> None:
        super().__init__()
        order = ORDERS[config.activation_order]
        out_channels = width * self.expansion
        convolutions = self._convolutions(in_channels, width, stride)
        self._add_branch(order, convolutions, config.norm, entered=entered)
        if config.norm == "none" and config.shortcut != "none":
            self.scale = BranchScale(sum(config.stages))
            self.branch_steps += ("scale",)
        # In place, except where the ReLU reads x itself, which the shortcut still needs.
        self.relu = nn.ReLU(inplace=order.before != ("relu",))
        self.downsample = make_shortcut(config, in_channels, out_channels, stride)
        self.join = make_join(config, in_channels, out_channels, stride)
        self.shares_entry = not isinstance(self.downsample, nn.Identity)

    def _convolutions(self, in_channels: int, width: int, stride: int) -> list[nn.Conv2d]:
        raise NotImplementedError

    def _add_branch(
        self, order: Order, convolutions: list[nn.Conv2d], norm: str, *, entered: bool
    ) -> None:
        """Add `conv1`, `bn1`, … and note in which order the forward pass visits them."""
        count = len(convolutions)
        self.enter_steps = () if entered else _numbered(order.before, 1)
        branch: list[str] = []
        for number, conv in enumerate(convolutions, 1):
            before = _numbered(order.before, number) if number > 1 else ()
            behind = order.last if number == count else order.after
            branch += [*before, f"conv{number}", *_numbered(behind, number)]
            self.add_module(f"conv{number}", conv)
            if "bn" in order.before and not (entered and number == 1):
                self.add_module(f"bn{number}", make_norm(norm, conv.in_channels))
            elif "bn" not in order.before:
                self.add_module(f"bn{number}", make_norm(norm, conv.out_channels))
        self.branch_steps = tuple(branch)
        self.leave_steps = _numbered(order.leave, count)

    def _run(self, steps: tuple[str, ...], x: torch.Tensor) -> torch.Tensor:
        for step in steps:
            x = getattr(self, step)(x)
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the block; shapes in the class's docstring."""
        entered = self._run(self.enter_steps, x)
        carried = entered if self.shares_entry else x
        residual = self._run(self.branch_steps, entered)
        joined = self.join(carried, self.downsample(carried), residual)
        return self._run(self.leave_steps, joined)

    @torch.no_grad()
    def zero_residual(self) -> None:
        """Make the residual branch output zero, by the last of its weights.

        That is the weight of the normalisation that ends the branch, or of the last
        convolution where none does (`bn_after_add`, `preact`); without normalisation, the
        branch's factor.
        """
        weighted = [step for step in self.branch_steps if step != "relu"][-1]
        nn.init.zeros_(getattr(self, weighted).weight)


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions (He et al. 2016a, figure 5 left)."""

    def _convolutions(self, in_channels: int, width: int, stride: int) -> list[nn.Conv2d]:
        return [_conv(in_channels, width, 3, stride), _conv(width, width, 3)]


class Bottleneck(ResidualBlock):
    """1x1, 3x3 and 1x1 convolutions (He et al. 2016a, figure 5 right).

    The stride is in the 3x3 convolution, as in torchvision; the paper has it in the first
    1x1. Known as ResNet v1.5.
    """

    expansion = 4

    def _convolutions(self, in_channels: int, width: int, stride: int) -> list[nn.Conv2d]:
        return [
            _conv(in_channels, width, 1),
            _conv(width, width, 3, stride),
            _conv(width, width * self.expansion, 1),
        ]


BLOCKS: dict[str, type[ResidualBlock]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


def _conv(in_channels: int, out_channels: int, size: int, stride: int = 1) -> nn.Conv2d:
    """Return a convolution without bias: a normalisation follows, or the addition."""
    return nn.Conv2d(in_channels, out_channels, size, stride=stride, padding=size // 2, bias=False)


def _numbered(steps: tuple[str, ...], number: int) -> tuple[str, ...]:
    """Name the steps of a convolution: ("bn", "relu") → ("bn2", "relu") for the second."""
    return tuple(f"bn{number}" if step == "bn" else step for step in steps)
