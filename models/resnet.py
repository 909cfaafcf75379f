"""The residual network: stem, stages of residual blocks, pooling, linear classifier.

One class for He et al. 2016a, table 1 (ImageNet) and section 4.2 (CIFAR-10), and for the
variants of He et al. 2016b; `ResNetConfig` says which.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from .blocks import BLOCKS, ORDERS, ResidualBlock
from .errors import ModelError
from .normalisation import make_norm

if TYPE_CHECKING:
    from .config import ResNetConfig


class ResNet(nn.Module):
    """A residual network, with torchvision's state-dict keys.

    Maps (n, in_channels, h, w) to (n, num_classes). Any h, w ≥ 1 is taken; a stage's map
    has ⌈side / 2⌉ of the one before it.

    Args:
        config: what the network is.
        num_classes: outputs of the classifier.
        in_channels: channels of the images.

    Raises:
        ModelError: the configuration has no stage, or an empty one.
    """

    def __init__(self, config: ResNetConfig, *, num_classes: int, in_channels: int) -> None:
        super().__init__()
        if not config.stages or min(config.stages) < 1:
            raise ModelError(f"stages={config.stages}: every stage needs at least one block")
        self.config = config
        self._add_stem(in_channels)
        features = self._add_stages()
        self._add_final_activation(features)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(features, num_classes)
        self.reset_parameters()

    def _add_stem(self, in_channels: int) -> None:
        width, imagenet = self.config.width, self.config.stem == "imagenet"
        size, stride = (7, 2) if imagenet else (3, 1)
        self.conv1 = nn.Conv2d(
            in_channels, width, size, stride=stride, padding=size // 2, bias=False
        )
        self.bn1 = make_norm(self.config.norm, width)
        self.relu = nn.ReLU(inplace=True)
        pool = nn.MaxPool2d(3, stride=2, padding=1) if imagenet else nn.Identity()
        self.maxpool: nn.Module = pool

    def _add_stages(self) -> int:
        """Add `layer1`, `layer2`, … and return the channels of the last."""
        block = BLOCKS[self.config.block]
        channels = self.config.width
        for number, count in enumerate(self.config.stages):
            width = self.config.width * 2**number
            blocks = nn.Sequential()
            for position in range(count):
                stride = 2 if number > 0 and position == 0 else 1
                first = number == 0 and position == 0
                blocks.append(block(self.config, channels, width, stride, entered=first))
                channels = width * block.expansion
            self.add_module(f"layer{number + 1}", blocks)
        return channels

    def _add_final_activation(self, channels: int) -> None:
        """End the pre-activation orders as they begin (He et al. 2016b, appendix).

        The last unit has no next one to activate its sum; without this the classifier
        would see it bare.
        """
        self.final = nn.Sequential()
        for step in ORDERS[self.config.activation_order].before:
            norm = make_norm(self.config.norm, channels)
            self.final.append(norm if step == "bn" else nn.ReLU(inplace=True))

    @property
    def stages(self) -> tuple[nn.Sequential, ...]:
        """The stages, each a sequence of residual blocks."""
        return tuple(
            self.get_submodule(f"layer{number + 1}")  # type: ignore[misc]  # added as Sequential
            for number in range(len(self.config.stages))
        )

    def reset_parameters(self) -> None:
        """Draw the weights: convolutions from N(0, 2 / fan_out) (He et al. 2015, eq. 14).

        The gates' biases, the normalisations and the classifier keep what their own
        constructors gave them.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if self.config.zero_init_residual:
            for module in self.modules():
                if isinstance(module, ResidualBlock):
                    module.zero_residual()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (n, in_channels, h, w) to class scores (n, num_classes)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in self.stages:
            x = stage(x)
        x = self.avgpool(self.final(x))
        scores: torch.Tensor = self.fc(torch.flatten(x, 1))
        return scores
