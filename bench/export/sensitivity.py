"""The effect of int8 on each layer, and the fewest layers to keep in fp32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.export.session import logits_of, open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from bench.export.quantise import Quantiser

_BATCH = 32


@dataclass(frozen=True)
class Effect:
    """The effect of quantising one layer alone.

    Attributes:
        layer: its name in the graph.
        effect: root mean square of the change of the logits, relative to that of the logits.
        kept: it is kept in fp32.
    """

    layer: str
    effect: float
    kept: bool = False


def layer_effects(
    quantiser: Quantiser, folder: Path, images: npt.NDArray[np.float32], threads: int
) -> list[Effect]:
    """Quantise one layer at a time, and measure how far the logits of *images* move.

    Calibration images will do, since no labels are needed; the test set is not touched.

    Returns:
        The layers, the most sensitive first.
    """
    exact = _logits(quantiser.prepared, images, threads)
    scale = float(np.square(exact).mean()) or 1.0
    effects = []
    for layer in quantiser.layers:
        file = quantiser.write(folder / "layer.onnx", only=[layer])
        change = float(np.square(_logits(file, images, threads) - exact).mean())
        effects.append(Effect(layer, (change / scale) ** 0.5))
    return sorted(effects, key=lambda effect: -effect.effect)


def fewest_kept(effects: Sequence[Effect], good_enough: Callable[[list[str]], bool]) -> list[str]:
    """Find how many of the most sensitive layers have to stay in fp32.

    The number is bisected, since keeping more layers costs no accuracy except by chance.

    Args:
        effects: the most sensitive first.
        good_enough: returns whether the file with these layers kept is accurate enough.

    Returns:
        The layers to keep; all of them if nothing less is good enough.
    """
    order = [effect.layer for effect in effects]
    low, high = 0, len(order)  # the caller knows that none is not enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if good_enough(order[:middle]) else (middle, high)
    return order[:high]


def _logits(file: Path, images: npt.NDArray[np.float32], threads: int) -> npt.NDArray[Any]:
    return logits_of(open_session(file, threads=1), images, _BATCH, workers=threads)
