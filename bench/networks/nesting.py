"""Whether a network can compute every function of a smaller one, and which layer prevents it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from bench.errors import BenchError
from bench.models import ResNet, ResNetConfig, build_model

if TYPE_CHECKING:
    from collections.abc import Mapping

Network = tuple[str, "Mapping[str, Any]"]  # canonical name and options

# The layer of a new block that cannot pass its input unchanged, and why it cannot.
_SIGMOID = "its gate is a sigmoid, which is never 0: the shortcut is never whole"
_BROKEN_SHORTCUTS = {
    "none": (
        "bn1",
        "without a shortcut all must pass its normalisation by the batch, which changes it",
    ),
    "all_projection": (
        "downsample",
        "its shortcut is a projection, which must be learned to be the identity",
    ),
    "scaled": ("join", "it scales the shortcut, so the input does not come through as it is"),
    "gated": ("join", _SIGMOID),
    "shortcut_only_gated": ("join", _SIGMOID),
}
_BROKEN_ORDERS = {
    "bn_after_add": (
        "bn{last}",
        "it stands behind the addition, so batch norm renormalises the shortcut too",
    ),
    "relu_before_add": (
        "relu",
        "it ends the branch and passes no gradient at 0: an identity would stay one for ever",
    ),
}
_HINT = "grow networks with identity shortcuts and activation_order post, relu_preact or preact"


def configuration(network: Network) -> ResNetConfig:
    """Return the configuration of a residual network, without drawing its weights.

    Raises:
        BenchError: the network is of another family.
    """
    name, options = network
    with torch.device("meta"):
        model = build_model(name, **options)
    if not isinstance(model, ResNet):
        raise BenchError(
            f"{name} cannot grow, nor be grown to: only the residual networks of 'bench list "
            "models' (resnet…, preact_resnet…) are made of blocks that can be the identity"
        )
    return model.config


def check_nesting(parent: Network, child: Network) -> None:
    """Check that *child* can compute every function that *parent* computes.

    Depth needs blocks that can be the identity with weights that still learn (He et
    al. 2016a, section 3.1; 2016b, section 2); width needs channels that can be copied
    (Chen et al. 2016, Net2Net, arXiv:1511.05641), which every kind of block allows.

    Raises:
        BenchError: it cannot; the layer that breaks the nesting is named.
    """
    small, large = configuration(parent), configuration(child)
    start = f"{_spelled(child)} does not contain {_spelled(parent)}: "
    _check_alike(small, large, start)
    if large.norm != "batch":
        raise BenchError(f"{start}only networks with batch norm can grow; use norm=batch")
    if large.width < small.width:
        raise BenchError(
            f"{start}conv1 has {large.width} channels there and {small.width} here; "
            f"give --width {small.width} or more"
        )
    for number, (few, many) in enumerate(zip(small.stages, large.stages, strict=True), 1):
        if many < few:
            raise BenchError(
                f"{start}layer{number} has {many} blocks there and {few} here; "
                "a network grows to at least as many in every stage"
            )
    if small.stages != large.stages:
        _check_identity(small, large, start)


def _check_alike(small: ResNetConfig, large: ResNetConfig, start: str) -> None:
    """Raise if common layers are of different kinds."""
    places = {
        "stem": "conv1",
        "block": "layer1.0",
        "activation_order": "layer1.0",
        "norm": "bn1",
        "shortcut": "layer1.0.join" if "none" in (small.shortcut, large.shortcut) else "layer2.0",
        "resize": "layer2.0.downsample",
        "shortcut_scale": "layer1.0.join",
        "residual_scale": "layer1.0.join",
    }
    for option, place in places.items():
        here, there = getattr(small, option), getattr(large, option)
        if here != there:
            raise BenchError(
                f"{start}{place} breaks the nesting ({option} {there} there, {here} here); "
                f"grow to a network with {option}={here}"
            )
    if len(small.stages) != len(large.stages):
        raise BenchError(f"{start}they have {len(large.stages)} and {len(small.stages)} stages")


def _check_identity(small: ResNetConfig, large: ResNetConfig, start: str) -> None:
    """Raise if new blocks cannot be the identity and still learn."""
    reason = _BROKEN_SHORTCUTS.get(large.shortcut) or _BROKEN_ORDERS.get(large.activation_order)
    if reason is None:
        return
    stage = next(i for i, n in enumerate(large.stages) if n > small.stages[i])
    layer, why = reason
    layer = layer.format(last=3 if large.block == "bottleneck" else 2)
    raise BenchError(
        f"{start}layer{stage + 1}.{small.stages[stage]}.{layer} breaks the nesting: {why}; {_HINT}"
    )


def _spelled(network: Network) -> str:
    name, options = network
    return " ".join([name, *(f"{k}={v}" for k, v in options.items())])
