"""Initial weights that two networks share wherever their tensors share a name and a shape."""

from __future__ import annotations

import hashlib
from typing import Literal

import torch
from torch import nn

from bench.data.splits import stable_seed

# Weights of these are drawn again; all others keep the values of the network's own code.
_DRAWN = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


@torch.no_grad()
def initialise(
    model: nn.Module, seed: int, scheme: Literal["he", "xavier", "model"] = "he"
) -> None:
    """Draw the weights of convolutions and linear layers, each from its own generator.

    The generator is seeded by *seed* and the parameter's name, so a tensor that has
    one name and shape in two networks starts equal in both, whatever surrounds it.
    A tensor that the network set to a constant on purpose (a zero-initialised residual
    branch, a gate's bias) keeps it.

    Args:
        model: on the CPU.
        seed: the run's random seed.
        scheme: `he` draws convolutions from N(0, 2 / fan_out) (He et al. 2015, eq. 14; PyTorch
            does not divide fan_out by groups) and
            linear layers uniformly within ±1/sqrt(fan_in), with zero biases; `xavier`
            draws both uniformly within ±sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio
            2010, eq. 16), with zero biases; `model` changes nothing.
    """
    if scheme == "model":
        return
    for module_name, module in model.named_modules():
        if not isinstance(module, _DRAWN):
            continue
        for kind, tensor in module.named_parameters(recurse=False):
            # Under weight_norm, the weight is made of weight_g and weight_v, which stay.
            if kind not in {"weight", "bias"} or _constant(tensor):
                continue
            if kind == "bias":
                tensor.zero_()
                continue
            generator = torch.Generator().manual_seed(
                stable_seed("initial", seed, f"{module_name}.{kind}")
            )
            if scheme == "xavier":
                nn.init.xavier_uniform_(tensor, generator=generator)
            elif isinstance(module, nn.Linear):
                bound = module.in_features**-0.5
                nn.init.uniform_(tensor, -bound, bound, generator=generator)
            else:
                nn.init.kaiming_normal_(
                    tensor, mode="fan_out", nonlinearity="relu", generator=generator
                )


def digests(model: nn.Module) -> dict[str, str]:
    """Map parameter names to digests of shape and values, which show what two runs share."""
    return {name: _digest(tensor) for name, tensor in model.named_parameters()}


def _constant(tensor: torch.Tensor) -> bool:
    return tensor.numel() > 1 and bool((tensor == tensor.flatten()[0]).all())


def _digest(tensor: torch.Tensor) -> str:
    content = tensor.detach().contiguous().cpu().numpy().tobytes()
    return hashlib.sha256(str(tuple(tensor.shape)).encode() + content).hexdigest()[:16]
