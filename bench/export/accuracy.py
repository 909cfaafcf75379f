"""Accuracy of a file on the whole test set, next to PyTorch's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bench.export.parity import BATCH_SIZES, reference_logits
from bench.export.session import logits_of
from bench.system.mcnemar import mcnemar_p_value

if TYPE_CHECKING:
    from torch import Tensor

    from bench.data.images import Images
    from bench.targets.network import LoadedNetwork

_CHUNK = 256  # images prepared at a time
BATCH = max(BATCH_SIZES)  # one of parity's, which need not compute these answers again


@dataclass(frozen=True)
class Comparison:
    """Two sets of predictions for the same images.

    Attributes:
        images: number of images.
        reference: accuracy of the reference, 0…1.
        accuracy: accuracy of the other, 0…1.
        flipped: number of predictions that differ.
        lost: number that are right in the reference only.
        won: number that are right in the other only.
        p_value: of the exact McNemar test of equal accuracy.
    """

    images: int
    reference: float
    accuracy: float
    flipped: int
    lost: int
    won: int
    p_value: float

    @property
    def drop(self) -> float:
        """Loss of accuracy in percentage points."""
        return (self.reference - self.accuracy) * 100


class Judge:
    """A network's test set with PyTorch's answers, computed once, and at *batch_size* if given."""

    def __init__(
        self, source: LoadedNetwork, images: Images, batch_size: int | None = None
    ) -> None:
        self.source = source
        self.images = images
        self.labels = images.labels.cpu().numpy()
        chunks = [reference_logits(source, chunk, batch_size) for chunk in images.chunks(_CHUNK)]
        self.logits = np.concatenate(chunks)

    def answers(
        self, session: Any, *, raw: bool = False, workers: int = 1
    ) -> npt.NDArray[np.float32]:
        """Return a file's logits of the whole test set, float32, N×classes, at batch `BATCH`.

        Args:
            session: the open file.
            raw: it takes uint8 images N×H×W×C.
            workers: see `bench.export.session.run`.
        """
        chunks = [
            logits_of(session, feed(self.source, chunk, raw=raw), BATCH, workers=workers)
            for chunk in self.images.chunks(_CHUNK)
        ]
        return np.concatenate(chunks)

    def score(self, answers: npt.NDArray[np.float32]) -> Comparison:
        """Compare a file's `answers` with PyTorch's."""
        return compare_answers(self.logits.argmax(1), answers.argmax(1), self.labels)


def feed(source: LoadedNetwork, images: Tensor, *, raw: bool) -> npt.NDArray[Any]:
    """Turn uint8 images N×C×H×W, or prepared ones, into a file's input."""
    if raw:
        return np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
    prepared: npt.NDArray[Any] = source.prepare(images).numpy()
    return prepared


def compare_answers(
    reference: npt.NDArray[np.int64], other: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]
) -> Comparison:
    """Compare two sets of predicted classes, each int64, N, with an exact McNemar test."""
    right, now = reference == labels, other == labels
    lost, won = int((right & ~now).sum()), int((~right & now).sum())
    return Comparison(
        images=len(labels),
        reference=float(right.mean()),
        accuracy=float(now.mean()),
        flipped=int((reference != other).sum()),
        lost=lost,
        won=won,
        p_value=mcnemar_p_value(lost, won),
    )
