"""How large the gradient is at each block of an untrained network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from bench.lesions.blocks import Place


def gradient_norms(
    model: nn.Module, places: list[Place], images: Tensor, labels: Tensor
) -> dict[str, float]:
    """L2 norm of the loss's gradient with respect to each block's convolution weights.

    Of one batch in training mode, as the first step of a training sees it. Convolutions on the
    shortcut are not the branch's, and do not count.

    Args:
        model: the network, as initialised; its batch-norm statistics are changed by the pass.
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
