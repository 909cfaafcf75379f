"""Accuracy of a file on the whole test set, next to PyTorch's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.export.parity import BATCH_SIZES, reference_logits
from bench.export.session import logits_of
from bench.system.mcnemar import mcnemar_p_value

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    from bench.data.images import Images
    from bench.targets.network import LoadedNetwork

_CHUNK = 256  # images prepared at a time
BATCH = max(BATCH_SIZES)  # one of parity's, which need not compute these answers again


@dataclass(frozen=True)
class Comparison:
    """Two sets of answers to the same images.

    Attributes:
        images: how many.
        reference: share that the reference answers right, 0…1.
        accuracy: share that the other answers right.
        flipped: answers that differ.
        lost: right in the reference, wrong in the other.
        won: the other way round.
        p_value: of the exact McNemar test that both are right equally often.
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
        """How much is lost, in points (hundredths)."""
        return (self.reference - self.accuracy) * 100


class Judge:
    """The test set with PyTorch's answers, computed once.

    Args:
        source: the network.
        images: its test set.
    """

    def __init__(self, source: LoadedNetwork, images: Images) -> None:
        self.source = source
        self.images = images
        self.labels = images.labels.cpu().numpy()
        self.logits = reference_logits(source, images.images)

    def answers(
        self, session: Any, *, raw: bool = False, workers: int = 1
    ) -> npt.NDArray[np.float32]:
        """Return a file's logits of the whole test set, float32, N×classes, at batch `BATCH`.

        Args:
            session: the file, opened.
            raw: it takes uint8 images N×H×W×C.
            workers: batches beside each other (`bench.export.session.run`).
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
    """Turn images of a source (uint8 N×C×H×W, or prepared) into what a file takes."""
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
