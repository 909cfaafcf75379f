"""The optimisers: SGD, Muon for the hidden matrices, Lookahead and averages around both."""

from __future__ import annotations

import functools
import itertools
import math
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from bench.models import ResidualBlock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.studies.recipe import Recipe

LOOKAHEAD_SHARE = 0.5

STEPS = 5  # of Newton-Schulz
# Matrices of more rows and columns are orthogonalised in blocks of so many rows, since the cost of
# a block grows with the square of its rows. In Khaled et al. 2025 (arXiv:2510.16981) the blocks are
# the shards of several devices, and whole matrices follow periodically; here they do not.
BLOCK_ROWS = 128
# Up to so many columns per row, iterating on X costs about as little as on the Gram matrix (equal
# at 1.5), and loses less in bf16.
NEARLY_SQUARE = 2.5
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
BF16_CAPABILITY = (8, 0)  # of CUDA devices with bf16


def make_optimisers(
    model: nn.Module, recipe: Recipe, device: torch.device
) -> list[torch.optim.Optimizer]:
    """Make SGD and, if the recipe uses it, Muon; every trainable parameter is in one of them.

    One that would have no parameters is left out. The model must be on *device* and have its final
    memory format.
    """
    hidden = hidden_matrices(model) if recipe.muon_learning_rate else []
    nesterov = recipe.nesterov and recipe.momentum > 0
    groups = parameter_groups(model, recipe, without=hidden)
    optimisers: list[torch.optim.Optimizer] = []
    if groups:
        sgd = torch.optim.SGD(
            groups,
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            nesterov=nesterov,
            fused=device.type in {"cpu", "cuda"},
        )
        # PyTorch allocates these in the first step, and does not write them if fp16 overflows then.
        for group in sgd.param_groups if recipe.momentum > 0 else ():
            for parameter in group["params"]:
                sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        optimisers.append(sgd)
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
    orthogonalising a matrix does not depend on the order of its columns. The update is PyTorch's
    for each block of `BLOCK_ROWS` rows, computed in fewer operations (`orthogonalise`) and in the
    arithmetic of `muon_precision`.
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
        self.dtype = DTYPES[muon_precision(self.matrices[0].device)]

    def take_gradients(self) -> None:
        """Pass the kernels' gradients to the matrices; call it after every backward pass."""
        for kernel, matrix in zip(self.kernels, self.matrices, strict=True):
            matrix.grad = None if kernel.grad is None else _as_matrix(kernel.grad, kernel)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """Update the matrices by their gradients, blocks of one shape together."""
        for group in self.param_groups:
            trained = [matrix for matrix in group["params"] if matrix.grad is not None]
            if not trained:
                continue
            torch._foreach_mul_(trained, 1 - group["lr"] * group["weight_decay"])
            alike: dict[tuple[torch.Size, float], list[tuple[Tensor, Tensor]]] = {}
            for matrix in trained:
                direction, columns = self._direction(matrix, group)
                count = _block_count(matrix)
                blocks = matrix[:, columns].tensor_split(count)
                for pair in zip(blocks, direction.tensor_split(count), strict=True):
                    scale = max(1, len(pair[0]) / matrix.shape[1]) ** 0.5
                    alike.setdefault((pair[0].shape, scale), []).append(pair)
            for (_, scale), pairs in alike.items():
                wanted = torch.stack([direction for _, direction in pairs])
                updates = orthogonalise(wanted, group["ns_coefficients"], self.dtype, group["eps"])
                updates *= -group["lr"] * scale
                torch._foreach_add_([block for block, _ in pairs], list(updates))

    def _direction(self, matrix: Tensor, group: dict[str, Any]) -> tuple[Tensor, slice]:
        """Add the gradient to the momentum; return the direction in its columns, and these."""
        gradient, state = matrix.grad, self.state[matrix]
        assert gradient is not None  # noqa: S101 - the caller has checked
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        momentum: Tensor = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        direction = gradient.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
        columns = _nonzero_columns(direction)
        return direction[:, columns], columns


def muon_precision(device: torch.device) -> str:
    """Return the arithmetic in which Muon orthogonalises: bf16 where hardware has it, else fp32.

    PyTorch's Muon always takes bf16, which a CPU without it emulates, 36 times slower than fp32
    (EPYC with AVX2). It is the fastest arithmetic of CPUs with AVX512-BF16. NVIDIA GPUs multiply
    matrices in bf16 from compute capability 8.0 on. On MPS it has not been measured: fp32.
    """
    native = False
    if device.type == "cpu":
        avx512 = torch.cpu._is_avx512_bf16_supported()
        native = avx512 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    elif device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= BF16_CAPABILITY
    return "bf16" if native else "fp32"


def orthogonalise(
    matrices: Tensor, coefficients: tuple[float, float, float], dtype: torch.dtype, eps: float
) -> Tensor:
    """Replace the singular values of matrices by five steps of s ← a·s + b·s³ + c·s⁵ each.

    These are Muon's Newton-Schulz iterations, from the matrices divided by their Frobenius norms.
    The polynomial is iterated on the small Gram matrix G = X·Xᵀ, and the wide X is multiplied by
    the product of all steps at the end ("Gram Newton-Schulz",
    dao-lab.ai/blog/2026/gram-newton-schulz). bf16 loses small singular values that way, so there X
    is multiplied and G computed again after the second step, as the authors advise. For matrices
    that are nearly square, doing so after every step is cheaper.

    Args:
        matrices: N×O×I.
        coefficients: a, b and c.
        dtype: the arithmetic of the iterations.
        eps: least norm that is divided by.

    Returns:
        N×O×I, of the type of *matrices*.
    """
    a, b, c = coefficients
    rows, columns = matrices.shape[1:]
    x = matrices.mT if rows > columns else matrices
    norm: Tensor = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp(min=eps)
    x = (x / norm).to(dtype)
    for steps in _restarts(x):
        gram, factors = x @ x.mT, []
        for step in range(steps):
            factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
            factor.diagonal(dim1=1, dim2=2).add_(a)
            factors.append(factor)
            if step + 1 < steps:
                gram = gram @ factor @ factor  # polynomials of one matrix commute
        x = functools.reduce(torch.matmul, [*factors, x])
    x = x.to(matrices.dtype)
    return x.mT if rows > columns else x


def _nonzero_columns(matrix: Tensor) -> slice:
    """Return a slice that holds all nonzero columns; of all columns, unless on a CPU.

    Kernels whose outer pixels meet padding only have one nonzero column in nine (contiguous), or
    one contiguous ninth (channels last). On other devices, finding them would wait for the device.
    """
    if matrix.device.type != "cpu":
        return slice(None)
    nonzero = ((matrix.amax(0) != 0) | (matrix.amin(0) != 0)).nonzero().flatten()  # so is NaN
    if len(nonzero) in {0, matrix.shape[1]}:
        return slice(len(nonzero))
    step = math.gcd(*nonzero.diff().tolist()) or 1
    return slice(int(nonzero[0]), int(nonzero[-1]) + 1, step)


def _block_count(matrix: Tensor) -> int:
    """Return into how many blocks of rows a matrix is split: one, if it has few columns."""
    return 1 if min(matrix.shape) <= BLOCK_ROWS else math.ceil(len(matrix) / BLOCK_ROWS)


def _restarts(x: Tensor) -> tuple[int, ...]:
    """Return after how many steps each X is multiplied: as seldom as pays and dtype allows."""
    rows, columns = x.shape[1:]
    if columns < NEARLY_SQUARE * rows:
        return (1,) * STEPS
    return (STEPS,) if x.dtype == torch.float32 else (2, STEPS - 2)


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


class Average:
    """A copy of a network whose weights and statistics are exponential averages.

    What PyTorch's `AveragedModel` computes, but without its counter, which is copied to the GPU in
    each step, so that the GPU waits. Other buffers, such as indices, counters and masks with
    infinities, are copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module = deepcopy(model)
        self._has_average = [
            *(True for _ in model.parameters()),
            *(_is_statistic(*buffer) for buffer in model.named_buffers()),
        ]
        self._update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def after_step(self, step: int, model: nn.Module) -> None:
        """Move towards the weights of *model*; those of step 0 are taken as they are."""
        kinds: dict[tuple[bool, torch.dtype], tuple[list[Tensor], list[Tensor]]] = {}
        pairs = zip(self._has_average, _tensors(self.module), _tensors(model), strict=True)
        for has_average, old, new in pairs:
            averages, values = kinds.setdefault((has_average, old.dtype), ([], []))
            averages.append(old.detach())
            values.append(new.detach())
        for (has_average, _), (averages, values) in kinds.items():
            if step and has_average:
                self._update(averages, values, None)
            else:
                torch._foreach_copy_(averages, values)


def _is_statistic(name: str, buffer: Tensor) -> bool:
    """Return whether a buffer is called a mean or a variance, as batch norm's are."""
    own = name.rpartition(".")[2]
    return buffer.is_floating_point() and ("mean" in own or "var" in own)


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    return itertools.chain(model.parameters(), model.buffers())


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
    parts = [getattr(block, step) for block in blocks for step in block.branch_steps]
    # Where the shortcut does not take what is entered, the branch alone does.
    alone = [block for block in blocks if not block.shares_entry]
    parts += [getattr(block, step) for block in alone for step in block.enter_steps]
    return [parameter for part in parts for parameter in part.parameters()]
