"""The residual networks by name: the ImageNet family and the CIFAR family.

`resnetN` has N layers with weights (shortcuts not counted); `plainN` is `resnetN` with
`shortcut="none"`; `preact_resnetN` is `resnetN` with `activation_order="preact"`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from .config import CHOICES, SHORTCUT_NUMBERS, Block, ResNetConfig, check_choice
from .errors import ModelError
from .registry import Canonical, Family, Options, check_options, register

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

# He et al. 2016a, table 1: depth → kind of block, blocks in each stage.
IMAGENET: dict[int, tuple[Block, tuple[int, ...]]] = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}
# He et al. 2016a, section 4.2: a stem, three stages of n blocks, a classifier.
CIFAR = (20, 32, 44, 56, 110)
LAYERS_PER_N = {"basic": 6, "bottleneck": 9}

# Everything but what the name itself says.
OPTIONS = tuple(f.name for f in fields(ResNetConfig) if f.name not in {"stages", "resize"})

_NAME = re.compile(r"(resnet|plain|preact_resnet)([1-9][0-9]{0,5})")
_IMPLIED: dict[str, dict[str, str]] = {
    "resnet": {},
    "plain": {"shortcut": "none"},
    "preact_resnet": {"activation_order": "preact"},
}


@dataclass(frozen=True, kw_only=True)
class ResidualFamily(Family):
    """Residual networks of several depths.

    Attributes:
        configure: depth and the requested block (None for the depth's own) → the network
            that `resnetDEPTH` stands for; None if the depth is not of this family.
            Raises ModelError for a depth that such blocks cannot make.
    """

    configure: Callable[[int, object], ResNetConfig | None]

    def canonical(self, name: str, options: Options) -> Canonical | None:
        """Return `resnetDEPTH` and the options that make a difference."""
        match = _NAME.fullmatch(name)
        own = self.configure(int(match[2]), options.get("block")) if match else None
        if match is None or own is None:
            return None
        check_options(name, options, OPTIONS)
        base = f"resnet{match[2]}"
        requested = {**options, **_implied(name, base, match[1], options)}
        _check_numbers_apply(requested, own)
        config = _simplest(replace(own, **requested), own)
        values = {option: getattr(config, option) for option in _telling(config)}
        return base, {k: v for k, v in sorted(values.items()) if v != getattr(own, k)}

    def build(self, network: Canonical, classes: int | None, channels: int | None) -> nn.Module:
        """Build the network that the canonical name and options describe."""
        from .resnet import ResNet

        name, options = network
        own = self.configure(int(name.removeprefix("resnet")), options.get("block"))
        if own is None:
            raise ModelError(f"'{name}' is not of the family '{self.name}'")
        return ResNet(
            replace(own, **options),
            num_classes=classes or self.classes,
            in_channels=channels or self.channels,
        )


def _imagenet(depth: int, block: object) -> ResNetConfig | None:
    if depth not in IMAGENET:
        return None
    own, stages = IMAGENET[depth]
    if block in CHOICES["block"] and block != own:
        able = {f"resnet{d}": s for d, (kind, s) in IMAGENET.items() if kind == block}
        twin = [f"with {block} blocks these stages are {n}; " for n in able if able[n] == stages]
        raise ModelError(
            f"resnet{depth} has {own} blocks, not block='{block}'; {''.join(twin)}"
            f"{block} blocks are in {', '.join(able)}"
        )
    return ResNetConfig(stages=stages, block=own)


def _cifar(depth: int, block: object) -> ResNetConfig | None:
    if depth in IMAGENET:
        return None
    kind = "basic" if block is None else check_choice("block", block)
    per_n = LAYERS_PER_N[kind]
    if depth not in _depths(per_n, depth):
        raise ModelError(_wrong_depth(depth, kind))
    return ResNetConfig(
        stages=((depth - 2) // per_n,) * 3,
        stem="cifar",
        width=16,
        shortcut="zero_pad",
        resize="zero_pad",
    )


def _depths(per_n: int, near: int) -> list[int]:
    """Return the depths per_n · n + 2, n ≥ 1, at *near* and on both sides of it."""
    n = max(0, (near - 2) // per_n)
    return [per_n * k + 2 for k in (n, n + 1) if k >= 1]


def _wrong_depth(depth: int, block: str) -> str:
    per_n = LAYERS_PER_N[block]
    fitting = " and ".join(map(str, _depths(per_n, depth)))
    other = next(kind for kind in LAYERS_PER_N if kind != block)
    fits_other = depth in _depths(LAYERS_PER_N[other], depth)
    also = f", or block='{other}' for {depth}" if fits_other else ""
    return (
        f"resnet{depth} with block='{block}': {per_n}n+2 layers are needed, "
        f"nearest: {fitting}{also} (ImageNet family: {', '.join(map(str, IMAGENET))})"
    )


def _implied(name: str, base: str, form: str, options: Options) -> dict[str, str]:
    """Return what the name says of the options, which may repeat but not deny it."""
    for option, value in _IMPLIED[form].items():
        if options.get(option, value) != value:
            raise ModelError(
                f"{name} is {base} with {option}='{value}'; "
                f"for {option}={options[option]!r} ask for {base}"
            )
    return _IMPLIED[form]


def _check_numbers_apply(requested: Mapping[str, Any], own: ResNetConfig) -> None:
    """Refuse a number that the shortcut has no use for; it would be ignored silently."""
    shortcut = requested.get("shortcut", own.shortcut)
    for option in requested:
        users = [kind for kind, numbers in SHORTCUT_NUMBERS.items() if option in numbers]
        if users and shortcut not in users:
            wanted = " or ".join(f"'{kind}'" for kind in users)
            raise ModelError(
                f"{option} has no meaning with shortcut={shortcut!r}; use it with shortcut={wanted}"
            )


def _simplest(config: ResNetConfig, own: ResNetConfig) -> ResNetConfig:
    """Return the plainest spelling of the same arithmetic."""
    neutral = {
        "scaled": config.shortcut_scale == config.residual_scale == 1,
        "dropout": config.dropout_rate == 0,
    }
    if neutral.get(config.shortcut, False):
        config = replace(config, shortcut=own.shortcut)
    one_each = config.block == "bottleneck" and set(config.stages) == {1}
    if config.shortcut == "all_projection" and one_each:
        config = replace(config, shortcut="projection")  # every block changes the shape
    if config.shortcut == "none":
        # Without an addition all orders are one (He et al. 2016b, section 4.1: "it does not
        # matter whether we think of them as post- or pre-activations").
        config = replace(config, activation_order="post")
    return config


def _telling(config: ResNetConfig) -> set[str]:
    """Return the options that can make a difference to this configuration."""
    numbers = {option for options in SHORTCUT_NUMBERS.values() for option in options}
    return set(OPTIONS) - numbers | set(SHORTCUT_NUMBERS.get(config.shortcut, ()))


register(
    ResidualFamily(
        name="imagenet",
        source="He et al. 2016a, table 1; preact_*: He et al. 2016b",
        names=(
            *(f"resnet{depth}" for depth in IMAGENET),
            *(f"plain{depth}" for depth in (18, 34)),  # those of the paper's table 2
            *(f"preact_resnet{depth}" for depth in IMAGENET),
        ),
        configure=_imagenet,
    )
)
register(
    ResidualFamily(
        name="cifar",
        source="He et al. 2016a, section 4.2; preact_*: He et al. 2016b",
        names=tuple(f"{form}{depth}" for form in _IMPLIED for depth in CIFAR),
        size=32,
        classes=10,
        configure=_cifar,
    )
)
