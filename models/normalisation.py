"""What normalises the channels of a residual network, and what a network without it has instead.

Batch normalisation (Ioffe and Szegedy 2015, arXiv:1502.03167) is the papers'. Group normalisation
(Wu and He 2018, arXiv:1803.08494) does not depend on the other images of the batch. A network
without normalisation keeps the shift of each channel, and each residual branch ends in one learned
factor that starts small, because without it the variance would double with every block (De and
Smith 2020, arXiv:2002.10444; Zhang et al. 2019, arXiv:1901.09321).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Shift(nn.Module):
    """Add a learned value to each channel, at first zero: a normalisation's shift alone."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, h, w) to the same shape."""
        return x + self.bias[:, None, None]

    def extra_repr(self) -> str:
        """Show the size in the network's printed form."""
        return str(len(self.bias))


class BranchScale(nn.Module):
    """Multiply a residual branch by one learned factor.

    Args:
        blocks: number of residual blocks of the network; the factor starts at 1/√blocks, so that
            the variance of the sum of all branches does not grow with depth.
    """

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([blocks**-0.5]))

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, h, w) to the same shape."""
        return x * self.weight


def make_norm(kind: str, channels: int) -> nn.Module:
    """Return the normalisation of *channels* that the option `norm` names.

    Groups have two channels or more, and there are at most 16 of them.
    """
    match kind:
        case "batch":
            return nn.BatchNorm2d(channels)
        case "group":
            return nn.GroupNorm(max(1, math.gcd(channels, 32) // 2), channels)
        case _:
            return Shift(channels)
