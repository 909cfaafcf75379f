"""The correlation of gradients at nearby inputs: Balduzzi et al. 2017.

The paper (section 2, figure 1) follows the derivative of a network along a line of inputs: brown
noise in shallow networks, white noise in deep plain ones, and something between in residual ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

POINTS = 256  # as in the paper's figure 1
LAGS = 32


def gradient_correlation(
    model: nn.Module, starts: Tensor, ends: Tensor, *, points: int = POINTS, lags: int = LAGS
) -> npt.NDArray[np.float64]:
    """Return the autocorrelation of a network's derivative along lines between images.

    For every line and every output of the network, the derivative with respect to the place on
    the line is taken at *points* equally spaced places; the result is the mean autocorrelation
    of these series.

    Args:
        model: in evaluation mode, so that it maps each image by itself.
        starts: where the lines begin, float images N×C×H×W.
        ends: where they end, likewise.
        points: number of places on each line.
        lags: the largest distance, in places.

    Returns:
        lags + 1 values, the first 1; NaN if every derivative is constant, as a linear network's.
    """
    from statsmodels.tsa.stattools import acf  # slow to import

    found = [
        acf(series, nlags=lags, fft=False)
        for start, end in zip(starts, ends, strict=True)
        for series in _derivatives(model, start, end, points)
        if np.ptp(series) > 0
    ]
    return np.mean(found, axis=0) if found else np.full(lags + 1, np.nan)


def _derivatives(
    model: nn.Module, start: Tensor, end: Tensor, points: int
) -> Iterator[npt.NDArray[np.float64]]:
    """Yield, for each output, its derivative at each place of one line."""
    places = torch.linspace(0, 1, points, device=start.device).view(-1, 1, 1, 1)
    line = torch.lerp(start[None], end[None], places).requires_grad_()
    outputs = model(line)
    for output in outputs.unbind(1):
        (gradient,) = torch.autograd.grad(output.sum(), line, retain_graph=True)
        along: Any = (gradient * (end - start)).flatten(1).sum(1)
        yield along.double().cpu().numpy()


@torch.no_grad()
def settle(model: nn.Module, images: Tensor) -> None:
    """Set an untrained network's batch-norm statistics to those of one batch."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average: of one batch, that batch's
    model.train()(images)
    model.eval()
