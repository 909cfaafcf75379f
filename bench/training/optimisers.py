"""The optimisers: SGD, Muon for the hidden matrices, and Lookahead around both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bench.models import ResidualBlock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.studies.recipe import Recipe

LOOKAHEAD_SHARE = 0.5


def make_optimisers(
    model: nn.Module, recipe: Recipe, device: torch.device
) -> list[torch.optim.Optimizer]:
    """Make SGD and, if the recipe uses it, Muon; every trainable parameter is in one of them.

    The model must be on *device* and have its final memory format.
    """
    hidden = hidden_matrices(model) if recipe.muon_learning_rate else []
    nesterov = recipe.nesterov and recipe.momentum > 0
    optimisers: list[torch.optim.Optimizer] = [
        torch.optim.SGD(
            parameter_groups(model, recipe, without=hidden),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            nesterov=nesterov,
            fused=device.type in {"cpu", "cuda"},
        )
    ]
    if hidden:
        kept = {id(p) for p in hidden}
        others = [p for p in model.parameters() if id(p) not in kept]
        optimisers.append(
            KernelMuon(
                parameter_groups(model, recipe, without=others),
                lr=recipe.muon_learning_rate,
                momentum=recipe.momentum,
                nesterov=nesterov,
            )
        )
    return optimisers


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """Return all kernels and matrices except those of the first and the last layer.

    Those two read pixels and write classes, and Muon does not train them (Jordan et al. 2024).
    """
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    ends = {id(layers[0].weight), id(layers[-1].weight)} if layers else set()
    return [p for p in model.parameters() if p.requires_grad and p.ndim > 1 and id(p) not in ends]


class KernelMuon(torch.optim.Muon):
    """PyTorch's Muon, which takes matrices only, on convolution kernels as well.

    A kernel O×I×H×W is seen as the matrix O×(I·H·W), in the order in which it lies in memory:
    orthogonalising a matrix does not depend on the order of its columns.
    """

    def __init__(
        self, groups: Sequence[dict[str, Any]], *, lr: float, momentum: float, nesterov: bool
    ) -> None:
        self.kernels = [p for group in groups for p in group["params"]]
        matrices = [
            {**group, "params": [nn.Parameter(_as_matrix(p.detach(), p)) for p in group["params"]]}
            for group in groups
        ]
        super().__init__(matrices, lr=lr, momentum=momentum, nesterov=nesterov)
        self.matrices = [p for group in self.param_groups for p in group["params"]]

    def take_gradients(self) -> None:
        """Pass the kernels' gradients to the matrices; call it after every backward pass."""
        for kernel, matrix in zip(self.kernels, self.matrices, strict=True):
            matrix.grad = None if kernel.grad is None else _as_matrix(kernel.grad, kernel)


def _as_matrix(values: Tensor, kernel: Tensor) -> Tensor:
    """View a kernel's values, or its gradient's, as they lie in the kernel's memory."""
    if kernel.ndim == 4 and not kernel.is_contiguous():  # noqa: PLR2004 - channels last
        values = values.permute(0, 2, 3, 1)
    return values.reshape(len(values), -1)


class Lookahead:
    """Slow weights that follow the fast ones, and pull them back (Zhang et al. 2019, algorithm 1).

    They are updated every *every* steps.
    """

    def __init__(self, parameters: Sequence[Tensor], every: int) -> None:
        self.fast = [p.detach() for p in parameters]
        self.slow = [p.clone() for p in self.fast]
        self.every = every

    def after_step(self, step: int, steps: int) -> None:
        """Move both weights half-way together if it is time, or *step* is the last of *steps*."""
        if (step + 1) % self.every and step + 1 < steps:
            return
        torch._foreach_lerp_(self.slow, self.fast, LOOKAHEAD_SHARE)
        torch._foreach_copy_(self.fast, self.slow)


def parameter_groups(
    model: nn.Module, recipe: Recipe, *, without: Sequence[nn.Parameter] = ()
) -> list[dict[str, Any]]:
    """Split the trainable parameters, but those in *without*, by their weight decay."""
    left_out, branches = {id(p) for p in without}, set()
    if recipe.branch_weight_decay is not None:
        branches = {id(p) for p in branch_parameters(model)}
    groups: dict[float, list[nn.Parameter]] = {recipe.weight_decay: [], 0.0: []}
    for parameter in model.parameters():
        if not parameter.requires_grad or id(parameter) in left_out:
            continue
        decay = recipe.weight_decay if recipe.decay_norm_and_bias or parameter.ndim > 1 else 0.0
        if recipe.branch_weight_decay is not None and id(parameter) in branches:
            decay = recipe.branch_weight_decay
        groups.setdefault(decay, []).append(parameter)
    return [{"params": p, "weight_decay": decay} for decay, p in groups.items() if p]


def branch_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of the residual branches; in a plain network, of the blocks."""
    blocks = [m for m in model.modules() if isinstance(m, ResidualBlock)]
    parts = (getattr(block, step) for block in blocks for step in block.branch_steps)
    return [parameter for part in parts for parameter in part.parameters()]
