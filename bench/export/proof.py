"""The proof of one file: parity of its logits, and its accuracy on the whole test set."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from bench.data.splits import stable_seed
from bench.errors import BenchError
from bench.export.accuracy import BATCH, Comparison, Judge, feed
from bench.export.convert import count_layers
from bench.export.files import ONE_FILE_BYTES, check
from bench.export.parity import (
    FP32_TOLERANCE,
    NO_LOGITS,
    Parity,
    compare,
    first_divergence,
    is_accepted,
    reference_logits,
    relative_difference,
    rounding_tolerance,
)
from bench.export.repeatability import reference_batch
from bench.export.session import logits_of, open_session

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt
    import onnx

    from bench.export.graph import Traced
    from bench.export.settings import Settings
    from bench.targets.network import LoadedNetwork

_BISECTED = 4  # images whose intermediate values are compared
_FEW = 8  # images that a graph is compared on before it is converted


@dataclass(frozen=True)
class Proof:
    """The result of comparing a file with PyTorch.

    Attributes:
        parity: of the logits.
        accuracy: on the whole test set; None without one, or if the arithmetic that ran is not
            the file's.
        other_sizes: largest relative difference for images of other sizes, of a file with
            preprocessing.
        executed_precision: the arithmetic that ran.
        diverges_at: first layer that differs, if the file is rejected.
    """

    parity: Parity
    accuracy: Comparison | None
    other_sizes: float | None
    executed_precision: str
    diverges_at: str | None = None

    @property
    def accepted(self) -> bool:
        """Whether the file computes what PyTorch does."""
        sizes = self.other_sizes is None or is_accepted(self.other_sizes, self.parity.tolerance)
        return self.parity.accepted and sizes

    @property
    def error(self) -> str | None:
        """Why it is refused, in one line; None if it is not."""
        if self.accepted:
            return None
        worst = max(self.parity.max_rel_diff, self.other_sizes or 0.0)
        layer = f"first at layer '{self.diverges_at or 'unknown'}'"
        if self.parity.tolerance is None:
            return f"{NO_LOGITS}; {layer}"
        return (
            f"logits differ from PyTorch's by {worst:.2g} of the largest, more than "
            f"{self.parity.tolerance:.2g}; {layer}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "parity": self.parity.as_dict(),
            "accuracy": asdict(self.accuracy) if self.accuracy else None,
            "flipped_predictions": flipped(self.parity, self.accuracy),
            "other_sizes_max_rel_diff": self.other_sizes,
            "executed_precision": self.executed_precision,
            "diverges_at": self.diverges_at,
        }


def flipped(parity: Parity, accuracy: Comparison | None) -> int:
    """Return how many predictions differ, on the test set or else on the images compared."""
    return accuracy.flipped if accuracy else parity.flipped


class Prover:
    """Compares files with one network, whose own answers are computed once.

    Args:
        source: the network.
        threads: CPU threads of ONNX Runtime.
        static_batch: the one batch size of the files; None for any.

    Raises:
        BenchError: the network does not repeat its logits (`reference_batch`).
    """

    def __init__(self, source: LoadedNetwork, threads: int, static_batch: int | None) -> None:
        self.source, self.threads, self.static_batch = source, threads, static_batch
        self.images = source.proof_images()
        self.batch = reference_batch(source, self.images, static_batch)
        test = None if source.timing_only else source.test_images()
        self.judge = None
        if test is not None:
            reference = partial(reference_logits, source, batch_size=self.batch)
            self.judge = Judge(test, reference, partial(feed, source))
        self.logits = self._logits()

    def agrees(self, proto: onnx.ModelProto) -> bool:
        """Return whether an fp32 graph computes what the network does, on a few images."""
        if proto.ByteSize() >= ONE_FILE_BYTES:
            return True  # it cannot be opened before it is written
        step = self.static_batch or _FEW
        count = step * math.ceil(_FEW / step)
        try:
            session = open_session(proto.SerializeToString(), threads=self.threads)
        except BenchError:
            return False
        few = feed(self.source, self.images[:count])
        return compare(
            session, self.logits[:count], few, tolerance=FP32_TOLERANCE, batch_sizes=(step,)
        ).accepted

    def prove(self, file: Path, traced: Traced, settings: Settings) -> Proof:
        """Check a file, and compare it with PyTorch.

        Args:
            file: the ONNX file.
            traced: the graph it was made from.
            settings: of the export.

        Raises:
            BenchError: it is not valid, or ONNX Runtime cannot load it.
        """
        check(file)
        session = open_session(file, threads=1)  # batches run beside each other
        tolerance = None
        if settings.precision != "int8":
            tolerance = rounding_tolerance(settings.precision, count_layers(traced.proto))
        feeding = partial(feed, self.source, raw=settings.with_preprocessing)
        fed = feeding(self.images)
        # A CPU computes an fp16 file in fp32: that is not the accuracy of fp16.
        replaced = settings.precision == "fp16"
        judge = None if replaced else self.judge
        answers = judge.answers(session, feed=feeding, workers=self.threads) if judge else None
        first = self._of_proof(answers)
        known = {} if first is None else {BATCH: first}
        parity = compare(
            session, self.logits, fed, tolerance=tolerance, known=known, workers=self.threads
        )
        accuracy = judge.score(answers) if judge and answers is not None else None
        proof = Proof(
            parity=parity,
            accuracy=accuracy,
            other_sizes=self._other_sizes(session) if settings.with_preprocessing else None,
            executed_precision="fp32" if replaced else settings.precision,
        )
        if proof.accepted:
            return proof
        few = self.static_batch or _BISECTED
        found = first_divergence(
            self.source,
            traced,
            file,
            fed[:few],
            self.source.prepare(self.images[:few]),
            limit=math.inf if tolerance is None else tolerance,
        )
        return replace(proof, diverges_at=found)

    def _logits(self) -> npt.NDArray[np.float32]:
        known = self._of_proof(self.judge.logits) if self.judge else None
        return reference_logits(self.source, self.images, self.batch) if known is None else known

    def _of_proof(
        self, of_test_set: npt.NDArray[np.float32] | None
    ) -> npt.NDArray[np.float32] | None:
        """Take the logits of the proof's images, which are the first of a large test set."""
        if of_test_set is None or len(of_test_set) < len(self.images):
            return None
        return of_test_set[: len(self.images)]

    def _other_sizes(self, session: Any) -> float:
        """Feed a file with preprocessing noise of sizes that the network was not trained at."""
        generator = torch.Generator().manual_seed(stable_seed("export", "sizes"))
        channels, side, _ = self.source.input_shape
        worst = 0.0
        for height, width in ((2 * side + 3, side + 5), (max(1, side // 2), side)):
            shape = (3, channels, height, width)
            images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
            expected = reference_logits(self.source, images, self.batch)
            ours = logits_of(session, feed(self.source, images, raw=True), len(images))
            worst = max(worst, relative_difference(ours, expected))
        return worst
