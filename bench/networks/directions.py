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
    """Draw a random direction in which every filter has the norm of the network's own.

    Li et al. 2018, section 4: a Gaussian direction d with each filter dᵢ replaced by
    dᵢ / ‖dᵢ‖ · ‖wᵢ‖; biases and normalisation parameters do not move. So two networks that compute
    the same, and differ in the scales of their filters only, have the same slices.

    Args:
        weights: name → tensor; a row (first index) of a kernel or matrix is a filter.
        seed: random seed; equal names and shapes get equal Gaussians.
        axis: number of the direction, of several for one seed.
    """
    direction = {}
    for name, weight in weights.items():
        if weight.ndim <= 1:
            direction[name] = torch.zeros_like(weight)
            continue
        generator = torch.Generator().manual_seed(stable_seed("landscape", seed, axis, name))
        drawn = torch.randn(weight.shape, generator=generator).to(weight)
        lengths, own = (tensor.flatten(1).norm(dim=1) for tensor in (drawn, weight))
        direction[name] = drawn * (own / lengths).view(-1, *[1] * (weight.ndim - 1))
    return direction


@torch.no_grad()
def values_along(
    weights: Mapping[str, Tensor],
    directions: Sequence[Direction],
    steps: Sequence[Sequence[float]],
    measure: Callable[[], Value],
) -> Iterator[tuple[tuple[float, ...], Value]]:
    """Move weights along directions, in place, and put them back at the end.

    Yields:
        For every combination of the directions' *steps*: these, and what *measure* returns there.
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
