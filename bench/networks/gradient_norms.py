"""The gradient norm of each block, and the norm of its branch relative to its shortcut."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.networks.blocks import Place, find_blocks, norm_ratios


def gradient_norms(
    model: nn.Module, places: list[Place], images: Tensor, labels: Tensor
) -> dict[str, float]:
    """Return the L2 norm of the loss's gradient for the convolutions of each block's branch.

    Args:
        model: the network, put in training mode; its batch-norm statistics change.
        places: its blocks.
        images: one batch, float N×C×H×W.
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
    """Measure every block of a copy of *model* on one batch, in training mode.

    Returns:
        For each block from input to output: block, gradient_norm (`gradient_norms`) and
        norm_ratio, the median over the images of `norm_ratios` (None without a shortcut, or where
        it carries nothing).

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
            "norm_ratio": _finite(torch.cat(found).median().item()) if found else None,
        }
        for place in places
        for found in (ratios[place.name],)
    ]


def _finite(value: float) -> float | None:
    """Return None for what JSON cannot hold."""
    return value if math.isfinite(value) else None
