"""The plain-CNN baseline: a VGG-style stack of 3x3 convolutions without shortcuts."""

from __future__ import annotations

import torch
from torch import nn

# Five and four times three layers cost what ResNet-18 costs: its 7x7 stem is 5.4 times
# a 3x3 one, which the fifth convolution makes up for; the rest is layer for layer alike.
LAYERS = (5, 4, 4, 4)


class PlainCNN(nn.Module):
    """Convolution, batch normalisation, ReLU, again and again, with max pooling between.

    Simonyan and Zisserman 2015 (arXiv:1409.1556) with batch normalisation, and with
    ResNet-18's resolutions and channels, so that it does ResNet-18's multiply-adds within
    15 % at 28, 32, 96 and 224 pixels and widths from 16 to 64.

    Maps (n, in_channels, h, w) to (n, num_classes). Pooling rounds up, so that any
    h, w ≥ 1 is taken; training needs more than one value to a channel in the last map:
    a batch of at least two, or more than 32 pixels.

    Args:
        num_classes: outputs of the classifier.
        in_channels: channels of the images.
        width: channels of the first stage; each further one has twice as many.
    """

    def __init__(self, *, num_classes: int, in_channels: int, width: int) -> None:
        super().__init__()
        self.stem = _layer(in_channels, width, stride=2)
        channels = width
        for number, count in enumerate(LAYERS):
            stage = nn.Sequential(nn.MaxPool2d(3, stride=2, padding=1))
            for _ in range(count):
                stage.append(_layer(channels, width * 2**number))
                channels = width * 2**number
            self.add_module(f"stage{number + 1}", stage)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (n, in_channels, h, w) to class scores (n, num_classes)."""
        x = self.stem(x)
        for number in range(len(LAYERS)):
            x = self.get_submodule(f"stage{number + 1}")(x)
        scores: torch.Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return scores


def _layer(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
