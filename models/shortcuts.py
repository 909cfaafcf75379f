"""The shortcut of a residual block, and how it joins the residual branch.

`Projection` and `ZeroPad` stand on the shortcut where a block changes the shape (He et al. 2016a,
section 3.3). `Add`, `NoShortcut`, `ScaledAdd`, `Gate` and `DropoutAdd` join shortcut and residual
branch (He et al. 2016b, figure 2 and table 1); they map x, the shortcut's output h(x) and the
branch's output F to their sum, of h's shape. All shapes are (batch, channels, height, width).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .normalisation import make_norm

if TYPE_CHECKING:
    from .config import ResNetConfig


class Projection(nn.Sequential):
    """A 1x1 convolution to the block's output shape (options B and C).

    Normalisation follows, as in torchvision, unless the input was normalised
    already: the pre-activation block projects the output of its first BN-ReLU (He et
    al. 2016b, appendix).
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, *, norm: str | None = "batch"
    ) -> None:
        super().__init__(nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False))
        if norm is not None:
            self.append(make_norm(norm, out_channels))


class ZeroPad(nn.Module):
    """The identity, subsampled, with zeros for the channels it lacks (option A)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.extra_channels = out_channels - in_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, in_channels, h, w) to (n, out_channels, ⌈h / stride⌉, ⌈w / stride⌉)."""
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.extra_channels))

    def extra_repr(self) -> str:
        """Show the sizes in the network's printed form."""
        return f"extra_channels={self.extra_channels}, stride={self.stride}"


class Add(nn.Module):
    """h(x) + F: the residual network (figure 2a)."""

    def forward(self, _: Tensor, shortcut: Tensor, residual: Tensor) -> Tensor:
        """Join shortcut and residual branch; see the module's docstring."""
        return residual + shortcut


class NoShortcut(nn.Module):
    """F alone: the plain network."""

    def forward(self, _x: Tensor, _shortcut: Tensor, residual: Tensor) -> Tensor:
        """Return the residual branch; see the module's docstring."""
        return residual


class ScaledAdd(nn.Module):
    """Constant scaling (figure 2b): both paths times a fixed factor."""

    def __init__(self, shortcut_scale: float, residual_scale: float) -> None:
        super().__init__()
        self.shortcut_scale = shortcut_scale
        self.residual_scale = residual_scale

    def forward(self, _: Tensor, shortcut: Tensor, residual: Tensor) -> Tensor:
        """Join shortcut and residual branch; see the module's docstring."""
        return self.shortcut_scale * shortcut + self.residual_scale * residual

    def extra_repr(self) -> str:
        """Show the factors in the network's printed form."""
        return f"shortcut_scale={self.shortcut_scale}, residual_scale={self.residual_scale}"


class Gate(nn.Module):
    """(1 - g) · h(x) + g · F, or + F where only the shortcut is gated (figure 2c, d).

    g = sigmoid(1x1 convolution of x + bias), a value for each position and channel. The
    paper's gates stand on identity shortcuts; where the shape changes, ours strides with
    the block and has its output channels.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, *, bias: float, exclusive: bool
    ) -> None:
        super().__init__()
        self.gate = nn.Conv2d(in_channels, out_channels, 1, stride=stride)
        nn.init.constant_(self.gate.bias, bias)  # type: ignore[arg-type]  # it has a bias
        self.exclusive = exclusive

    def forward(self, carried: Tensor, shortcut: Tensor, residual: Tensor) -> Tensor:
        """Join shortcut and residual branch; see the module's docstring."""
        gate = torch.sigmoid(self.gate(carried))
        return (1 - gate) * shortcut + (gate * residual if self.exclusive else residual)

    def extra_repr(self) -> str:
        """Show the kind in the network's printed form."""
        return f"exclusive={self.exclusive}"


class DropoutAdd(nn.Module):
    """Dropout on the shortcut (figure 2f), the identity in evaluation mode."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(rate)

    def forward(self, _: Tensor, shortcut: Tensor, residual: Tensor) -> Tensor:
        """Join shortcut and residual branch; see the module's docstring."""
        dropped: Tensor = self.dropout(shortcut)
        return residual + dropped


def make_shortcut(
    config: ResNetConfig, in_channels: int, out_channels: int, stride: int
) -> nn.Module:
    """Return what stands on a block's shortcut; the identity where nothing needs to."""
    changes_shape = stride != 1 or in_channels != out_channels
    if config.shortcut == "none" or not (changes_shape or config.shortcut == "all_projection"):
        return nn.Identity()
    option = config.resize if config.shortcut in _JOINED else config.shortcut
    if option == "zero_pad":
        return ZeroPad(in_channels, out_channels, stride)
    norm = None if config.activation_order == "preact" else config.norm
    return Projection(in_channels, out_channels, stride, norm=norm)


def make_join(config: ResNetConfig, in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Return how a block joins its shortcut and its residual branch."""
    match config.shortcut:
        case "none":
            return NoShortcut()
        case "scaled":
            return ScaledAdd(config.shortcut_scale, config.residual_scale)
        case "gated" | "shortcut_only_gated":
            exclusive = config.shortcut == "gated"
            return Gate(
                in_channels, out_channels, stride, bias=config.gate_bias, exclusive=exclusive
            )
        case "dropout":
            return DropoutAdd(config.dropout_rate)
        case _:
            return Add()


# What joins a block's two paths into one.
JOINS = (Add, ScaledAdd, Gate, DropoutAdd)

# The kinds that act on the shortcut of every block, on top of the family's own option.
_JOINED = ("scaled", "gated", "shortcut_only_gated", "dropout")
