"""Start a network's first convolution as filters that whiten the images' patches.

Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (arXiv:2404.00498), section 3.2,
after Coates and Ng 2012 and Page 2019. There, the layer has twice as many filters as a patch has
values; here they fill the channels that the network has, before its own batch norm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterable

EPSILON = 5e-4  # as in the code of the paper, whose images are normalised as well
IMAGES = 4096  # enough for a patch's covariance


def stem_of(model: nn.Module, channels: int, called: str) -> nn.Conv2d:
    """Return the convolution that reads images of *channels* channels.

    Raises:
        BenchError: the network, *called* so in the message, has none.
    """
    convolutions = (m for m in model.modules() if isinstance(m, nn.Conv2d))
    stem = next(convolutions, None)
    if stem is None or stem.in_channels != channels or stem.groups != 1:
        raise BenchError(
            f"{called} does not begin with a convolution of the images' {channels} channel(s), "
            "which whitening could fill; set whitening to 'none'"
        )
    return stem


@torch.no_grad()
def whiten(stem: nn.Conv2d, batches: Iterable[tuple[Tensor, Tensor]], *, freeze: bool) -> None:
    """Fill a convolution with whitening filters: the directions first, then their negatives.

    Where it has fewer channels than a patch has values, the directions of the largest variance
    are taken; channels beyond twice as many keep their weights.

    Args:
        stem: the convolution, changed in place.
        batches: float images N×C×H×W as the network sees them, and labels.
        freeze: do not train its weight.
    """
    filters = whitening_filters(patch_covariance(batches, stem.kernel_size))
    both = torch.cat((filters, -filters))[: stem.out_channels].to(stem.weight)
    shape = (len(both), stem.in_channels, *stem.kernel_size)
    stem.weight[: len(both)] = both.view(shape)
    if freeze:
        stem.weight.requires_grad = False


def patch_covariance(batches: Iterable[tuple[Tensor, Tensor]], kernel: tuple[int, ...]) -> Tensor:
    """Return the covariance of all patches that lie inside the images.

    Returns:
        float64, D×D, D = C · height · width, a patch's values in the order of a kernel's.

    Raises:
        BenchError: the images are smaller than a patch.
    """
    count, total, products = 0, torch.zeros(()), torch.zeros(())
    for images, _ in batches:
        if any(side < size for side, size in zip(images.shape[2:], kernel, strict=True)):
            raise BenchError(
                f"whitening: images of {'×'.join(map(str, images.shape[2:]))} hold no patch of "
                f"{'×'.join(map(str, kernel))}; choose a larger input_size"
            )
        patches = F.unfold(images.cpu(), kernel).transpose(0, 1).flatten(1).double()
        count += patches.shape[1]
        total = total + patches.sum(1)
        products = products + patches @ patches.T
    mean = total / count
    return products / count - torch.outer(mean, mean)


def whitening_filters(covariance: Tensor, epsilon: float = EPSILON) -> Tensor:
    """Return filters that turn values of this covariance into uncorrelated ones of unit variance.

    *epsilon* is added to every variance: a direction of variance v gets v / (v + epsilon).

    Returns:
        D×D, a filter a row, from the largest variance to the smallest, each with its largest
        component positive, since the sign of an eigenvector is arbitrary.
    """
    variances, vectors = torch.linalg.eigh(covariance)
    rows = vectors.T.flip(0)
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    filters: Tensor = (
        rows * largest.sign() / (variances.flip(0).clamp(min=0) + epsilon).sqrt()[:, None]
    )
    return filters
