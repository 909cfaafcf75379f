"""The residual network of the book, to the letter.

*Dive into Deep Learning*, chapter "Residual Networks (ResNet)". It differs from the
paper's ResNet-18 in that every convolution has a bias and that the 1x1 convolution on the
shortcut is not normalised: 11,178,378 parameters against 11,175,370 for one channel and
ten classes.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

MODULES = (64, 128, 256, 512)  # output channels, two residual blocks each


class Residual(nn.Module):
    """The book's residual block: relu(x + bn(conv(relu(bn(conv(x)))))).

    Maps (n, in_channels, h, w) to (n, out_channels, ⌈h / stride⌉, ⌈w / stride⌉).

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        use_1x1conv: put a 1x1 convolution on the shortcut; needed where the channels or
            the stride change the shape.
        stride: of the first 3x3 and of the 1x1 convolution.

    Example:
        The chapter's two demonstrations of a single block: the shape kept,

        >>> images = torch.rand(4, 3, 6, 6)
        >>> Residual(3, 3)(images).shape
        torch.Size([4, 3, 6, 6])

        and twice the channels at half the height and width:

        >>> Residual(3, 6, use_1x1conv=True, stride=2)(images).shape
        torch.Size([4, 6, 3, 3])
    """

    def __init__(
        self, in_channels: int, out_channels: int, use_1x1conv: bool = False, stride: int = 1
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv3 = (
            nn.Conv2d(in_channels, out_channels, 1, stride=stride) if use_1x1conv else nn.Identity()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the block; shapes in the class's docstring."""
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(residual + self.conv3(x))


def book_resnet18(*, num_classes: int, in_channels: int) -> nn.Sequential:
    """Return the chapter's network: a stem, four modules of two blocks, a linear layer.

    Maps (n, in_channels, h, w) to (n, num_classes). Weights are drawn as the chapter's
    training draws them: Xavier (Glorot and Bengio 2010, eq. 16), biases zero.
    """
    network = nn.Sequential()
    network.add_module("conv", nn.Conv2d(in_channels, MODULES[0], 7, stride=2, padding=3))
    network.add_module("bn", nn.BatchNorm2d(MODULES[0]))
    network.add_module("relu", nn.ReLU())
    network.add_module("maxpool", nn.MaxPool2d(3, stride=2, padding=1))
    channels = MODULES[0]
    for number, width in enumerate(MODULES, 1):
        resizes = number > 1  # the stem has halved twice already
        first = Residual(channels, width, use_1x1conv=resizes, stride=2 if resizes else 1)
        network.add_module(f"module{number}", nn.Sequential(first, Residual(width, width)))
        channels = width
    network.add_module("avgpool", nn.AdaptiveAvgPool2d(1))
    network.add_module("flatten", nn.Flatten())
    network.add_module("fc", nn.Linear(channels, num_classes))
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]  # all of them have one
    return network
