"""Directions in weight space, and the values of a function along them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from bench.data.splits import stable_seed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

Direction = dict[str, Tensor]
Value = TypeVar("Value")


def filter_normalised(weights: Mapping[str, Tensor], seed: int, axis: int = 0) -> Direction:
    """Draw a direction whose every filter is as long as the network's own.

    Li et al. 2018, section 4: a Gaussian direction d with each filter dᵢ replaced by
    dᵢ / ‖dᵢ‖ · ‖wᵢ‖; biases and normalisation parameters do not move. So the slices of two networks
    that differ only in the scales of their filters, and compute the same, are the same.

    Args:
        weights: name → tensor; a row (first index) of a kernel or matrix is a filter.
        seed: random seed; equal names and shapes get equal Gaussians.
        axis: which of several directions of a seed.
    """
    direction = {}
    for name, weight in weights.items():
        if weight.ndim <= 1:
            direction[name] = torch.zeros_like(weight)
            continue
        generator = torch.Generator().manual_seed(stable_seed("landscape", seed, axis, name))
        drawn = torch.randn(weight.shape, generator=generator).to(weight)
        lengths, own = (_row_norms(tensor) for tensor in (drawn, weight))
        direction[name] = drawn * (own / lengths)
    return direction


@torch.no_grad()
def values_along(
    weights: Mapping[str, Tensor],
    directions: Sequence[Direction],
    steps: Sequence[Sequence[float]],
    measure: Callable[[], Value],
) -> Iterator[tuple[tuple[float, ...], Value]]:
    """Move weights along directions, measure at every combination of steps, and put them back.

    Args:
        weights: name → tensor, moved in place.
        directions: one or more.
        steps: for each direction, how far to go.
        measure: called where the weights are; what it returns is yielded.

    Yields:
        The steps along each direction, and the value there.
    """
    centre = {name: weight.detach().clone() for name, weight in weights.items()}
    try:
        for place in itertools.product(*steps):
            for name, weight in weights.items():
                moved = centre[name].clone()
                for step, direction in zip(place, directions, strict=True):
                    moved += step * direction[name]
                weight.copy_(moved)
            yield place, measure()
    finally:
        for name, weight in weights.items():
            weight.copy_(centre[name])


def _row_norms(tensor: Tensor) -> Tensor:
    norms: Tensor = tensor.flatten(1).norm(dim=1)
    return norms.view(-1, *[1] * (tensor.ndim - 1))
