"""Network definitions, in plain torch, to be read next to the papers.

`build_model(name, num_classes=…, in_channels=…, **options)` builds any of them. How to
read the names:

- `resnet18`, `34`, `50`, `101`, `152`: the ImageNet family (He et al. 2016a, table 1);
- `resnet20`, `32`, `44`, `56`, `110`: the CIFAR family (section 4.2, 6n+2 layers; any
  other such depth works too, and 9n+2 with `block="bottleneck"`);
- `plainN`: `resnetN` with `shortcut="none"`;
- `preact_resnetN`: `resnetN` with `activation_order="preact"` (He et al. 2016b);
- `plain_cnn`: a VGG-style stack that costs what ResNet-18 costs;
- `d2l_resnet18`: the book's network to the letter;
- `timm:NAME`, `torchvision:NAME`, `package.module:function`: from elsewhere.

The options of the residual families are the fields of `ResNetConfig`. A new family calls
`register` in a file that is imported here. Names and options are known without torch, which takes
seconds to import: the networks' own classes are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .config import CHOICES, ResNetConfig
from .errors import LazyError, ModelError, UnknownModelError
from .registry import (
    Family,
    SingleFamily,
    build_model,
    canonical,
    default_shape,
    list_models,
    model_family,
    register,
)

# Each of these registers its names; their order is the order of `list_models()`.
from .families import ResidualFamily  # isort: skip
from . import singles as singles  # isort: skip
from .external import LibraryFamily, UserFamily, materialise  # isort: skip

if TYPE_CHECKING:
    from .blocks import BLOCKS, ORDERS, BasicBlock, Bottleneck, Order, ResidualBlock
    from .book import Residual
    from .plain_cnn import PlainCNN
    from .resnet import ResNet

_HOMES = {
    "BLOCKS": "blocks",
    "ORDERS": "blocks",
    "BasicBlock": "blocks",
    "Bottleneck": "blocks",
    "Order": "blocks",
    "PlainCNN": "plain_cnn",
    "ResNet": "resnet",
    "Residual": "book",
    "ResidualBlock": "blocks",
}

__all__ = [
    "BLOCKS",
    "CHOICES",
    "ORDERS",
    "BasicBlock",
    "Bottleneck",
    "Family",
    "LazyError",
    "LibraryFamily",
    "ModelError",
    "Order",
    "PlainCNN",
    "ResNet",
    "ResNetConfig",
    "Residual",
    "ResidualBlock",
    "ResidualFamily",
    "SingleFamily",
    "UnknownModelError",
    "UserFamily",
    "build_model",
    "canonical",
    "default_shape",
    "list_models",
    "materialise",
    "model_family",
    "register",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
