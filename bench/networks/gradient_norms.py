"""How large the gradient is at each block, and the block's branch against its shortcut."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.networks.blocks import Place, find_blocks, norm_ratios

if TYPE_CHECKING:
    from collections.abc import Sequence


def gradient_norms(
    model: nn.Module, places: list[Place], images: Tensor, labels: Tensor
) -> dict[str, float]:
    """L2 norm of the loss's gradient with respect to each block's convolution weights.

    Of one batch in training mode, as a step of a training sees it. Convolutions on the shortcut
    are not the branch's, and do not count.

    Args:
        model: the network; its batch-norm statistics are changed by the pass.
        places: its blocks.
        images: float images N×C×H×W.
        labels: int64, N.
    """
    model.train()
    model.zero_grad(set_to_none=True)
    loss = F.cross_entropy(model(images).float(), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    norms = {}
    for place in places:
        steps = (step for step in place.block.branch_steps if step.startswith("conv"))
        weights: list[Any] = [getattr(place.block, step).weight for step in steps]
        total = torch.nn.utils.get_total_norm([w.grad for w in weights if w.grad is not None])
        norms[place.name] = total.item()
    return norms


def measure_blocks(
    model: nn.Module, images: Tensor, labels: Tensor, *, called: str
) -> list[dict[str, Any]]:
    """Measure every block on one batch, in training mode, without changing the network.

    Args:
        model: a network of the residual families.
        images: float images N×C×H×W.
        labels: int64, N.
        called: how an error names the network.

    Returns:
        For each block from input to output: block, gradient_norm (`gradient_norms`) and
        norm_ratio, the median over the images of ‖F(x)‖ / ‖h(x)‖ where branch and shortcut meet
        (None without a shortcut, or where it carries nothing).

    Raises:
        BenchError: the network has no such blocks.
    """
    twin = copy.deepcopy(model)
    places = find_blocks(twin, called)
    with norm_ratios(places) as ratios:
        norms = gradient_norms(twin, places, images, labels)
    return [
        {
            "block": place.name,
            "gradient_norm": _finite(norms[place.name]),
            "norm_ratio": _median(ratios[place.name]),
        }
        for place in places
    ]


def _median(ratios: Sequence[Tensor]) -> float | None:
    return _finite(torch.cat(list(ratios)).median().item()) if ratios else None


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None
