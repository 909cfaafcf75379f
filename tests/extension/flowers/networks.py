"""A network of the user's own."""

from torch import nn


def petals(num_classes: int, in_channels: int = 3, width: int = 4) -> nn.Module:
    """Two convolutions and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, num_classes),
    )


def stubborn() -> nn.Module:
    """Always seven classes, whatever the data has."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 7))


def shrinking(num_classes: int, in_channels: int) -> nn.Module:
    """Its map vanishes where the input is smaller than 16."""
    halves = [nn.Sequential(nn.Conv2d(in_channels, in_channels, 3), nn.MaxPool2d(2))] * 2
    return nn.Sequential(*halves, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, num_classes))


def exploding(num_classes: int) -> nn.Module:
    """Normalises over one value a channel."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(1, num_classes)
    )
