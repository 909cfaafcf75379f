"""Accuracy of a file on the whole test set, next to that of a reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bench.export.parity import BATCH_SIZES
from bench.export.session import logits_of
from bench.system.mcnemar import mcnemar_p_value

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from bench.data.images import Images
    from bench.targets.network import LoadedNetwork

    Feed = Callable[[Tensor], npt.NDArray[Any]]

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
    """A test set with the answers of a reference, computed once.

    Args:
        images: the test set.
        reference: from some of its images, uint8 N×C×H×W, to the reference's logits.
        feed: from these images to the input of a file.
    """

    def __init__(
        self,
        images: Images,
        reference: Callable[[Tensor], npt.NDArray[np.float32]],
        feed: Feed,
    ) -> None:
        self.images, self.feed = images, feed
        self.labels = images.labels.cpu().numpy()
        self.logits = np.concatenate([reference(chunk) for chunk in images.chunks(_CHUNK)])

    def answers(
        self, session: Any, *, feed: Feed | None = None, workers: int = 1
    ) -> npt.NDArray[np.float32]:
        """Return a file's logits of the whole test set, float32, N×classes, at batch `BATCH`.

        Args:
            session: the open file.
            feed: from images to its input, if it takes another.
            workers: see `bench.export.session.run`.
        """
        chunks = [
            logits_of(session, (feed or self.feed)(chunk), BATCH, workers=workers)
            for chunk in self.images.chunks(_CHUNK)
        ]
        return np.concatenate(chunks)

    def score(self, answers: npt.NDArray[np.float32]) -> Comparison:
        """Compare a file's `answers` with the reference's."""
        return compare_answers(self.logits.argmax(1), answers.argmax(1), self.labels)


def feed(source: LoadedNetwork, images: Tensor, *, raw: bool = False) -> npt.NDArray[Any]:
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
