"""Comparing the logits of a file with PyTorch's, and finding the first layer that differs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch

from bench.errors import BenchError
from bench.export.session import logits_of, open_session, run, with_outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt
    from torch import Tensor, nn

    from bench.export.graph import Traced
    from bench.targets.network import LoadedNetwork

BATCH_SIZES = (1, 3, 32)
NO_LOGITS = "its logits are not finite, or of another shape than the reference's"
FP32_TOLERANCE = 1e-4  # of the largest logit; sound exports measure 4e-7 to 7e-7
_BITS = {"tf32": 11, "fp16": 11, "bf16": 8}  # significant ones
# As many images a batch as stay in a CPU's cache between layers, but enough to be worth a call.
_REFERENCE_BATCH, _REFERENCE_PIXELS = 32, 2**18


@dataclass(frozen=True)
class Parity:
    """Differences of logits between PyTorch and a file.

    Attributes:
        images: how many images were compared at each batch size.
        differences: batch size → largest absolute difference.
        largest_logit: largest absolute logit of PyTorch.
        flipped: images whose most likely class differs, at the worst batch size.
        tolerance: the largest relative difference that is accepted; None where accuracy
            alone decides (int8), of logits that are finite and of the same shape.
    """

    images: int
    differences: dict[int, float]
    largest_logit: float
    flipped: int
    tolerance: float | None

    @property
    def max_abs_diff(self) -> float:
        """Largest absolute difference over all batch sizes."""
        return max(self.differences.values())

    @property
    def max_rel_diff(self) -> float:
        """The same, relative to the largest logit."""
        return relative(self.max_abs_diff, self.largest_logit)

    @property
    def accepted(self) -> bool:
        """Whether the file computes the same, within the tolerance."""
        if self.tolerance is None:
            return math.isfinite(self.max_abs_diff)  # the reference's logits may all be 0
        return is_accepted(self.max_rel_diff, self.tolerance)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "images": self.images,
            "max_abs_diff_by_batch_size": {str(k): v for k, v in self.differences.items()},
            "max_abs_diff": self.max_abs_diff,
            "max_rel_diff": self.max_rel_diff,
            "largest_logit": self.largest_logit,
            "tolerance": self.tolerance,
        }


def is_accepted(difference: float, tolerance: float | None) -> bool:
    """Return whether a relative difference is finite and within the tolerance, if there is one."""
    return math.isfinite(difference) and (tolerance is None or difference <= tolerance)


def relative(difference: float, largest: float) -> float:
    """Return a difference relative to the largest logit; 0 if both are 0."""
    if difference == 0:
        return 0.0
    return difference / largest if largest else math.inf


def relative_difference(ours: npt.NDArray[np.float32], reference: npt.NDArray[np.float32]) -> float:
    """Return the largest difference of two sets of logits, relative to the reference's largest.

    It is infinite where ours are not finite, or of another shape.
    """
    if ours.shape != reference.shape or not np.isfinite(ours).all():
        return math.inf
    return relative(float(np.abs(ours - reference).max()), float(np.abs(reference).max()))


def rounding_tolerance(precision: str, layers: int) -> float:
    """Return the largest relative difference of logits that rounding explains.

    For fp32 it is `FP32_TOLERANCE`. For tf32, fp16 and bf16, to first order, each of the *layers*
    (convolutions and linear layers) rounds its weights and its result, a relative error of 2**-bits
    each; in the worst case all of them add up.
    """
    return FP32_TOLERANCE if precision == "fp32" else layers * 2 * 2.0 ** -_BITS[precision]


@torch.inference_mode()
def reference_logits(
    source: LoadedNetwork, images: Tensor, batch_size: int | None = None
) -> npt.NDArray[np.float32]:
    """Return PyTorch's logits of uint8 or prepared images, float32, N×classes.

    Args:
        source: the network.
        images: uint8 or prepared.
        batch_size: for a network whose logits depend on it; the last batch is padded as
            `bench.export.session.run` does.

    Raises:
        BenchError: the network does not return finite logits N×classes.
    """
    answers = []
    cached = _REFERENCE_PIXELS // math.prod(source.input_shape[1:])
    size = batch_size or max(1, min(_REFERENCE_BATCH, cached))
    classify = _channels_last(source.model)
    for start in range(0, len(images), size):
        batch = source.prepare(images[start : start + size])
        count = len(batch)
        if batch_size and count < size:
            batch = torch.cat([batch, batch[-1:].expand(size - count, *batch.shape[1:])])
        try:
            answer = classify(batch)
        except RuntimeError:  # it flattens maps with `view`, which takes contiguous ones only
            classify = source.model
            answer = classify(batch)
        if not isinstance(answer, torch.Tensor) or answer.dim() != 2:  # noqa: PLR2004 - N×classes
            raise BenchError(
                f"{source.name} does not return logits N×classes; only classifiers can be exported"
            )
        answers.append(answer[:count].float())
    logits: npt.NDArray[np.float32] = torch.cat(answers).numpy()
    if not np.isfinite(logits).all():
        raise BenchError(
            f"{source.name} itself returns logits that are not finite; "
            "nothing can be compared with them: train it again"
        )
    return logits


def _channels_last(model: nn.Module) -> Callable[[Tensor], Any]:
    """Return the network with channels-last convolutions, which are faster on a CPU.

    The network itself is left as it is.
    """
    weights = {
        name: weight.contiguous(memory_format=torch.channels_last)
        for name, weight in model.named_parameters()
        if weight.dim() == 4  # noqa: PLR2004 - a convolution's
    }

    def classify(batch: Tensor) -> Any:
        batch = batch.contiguous(memory_format=torch.channels_last)
        return torch.func.functional_call(model, weights, (batch,))

    return classify


def compare(
    session: Any,
    reference: npt.NDArray[np.float32],
    images: npt.NDArray[Any],
    *,
    tolerance: float | None,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    known: Mapping[int, npt.NDArray[np.float32]] | None = None,
    workers: int = 1,
) -> Parity:
    """Compare a file with PyTorch on every image at every batch size.

    Args:
        session: the open file.
        reference: PyTorch's logits, N×classes.
        images: the file's input, N first.
        tolerance: see `Parity`.
        batch_sizes: for a file of any batch size.
        known: batch size → the file's logits of these images, if they were computed before.
        workers: see `bench.export.session.run`.
    """
    fixed = session.get_inputs()[0].shape[0]
    sizes = [fixed] if isinstance(fixed, int) else batch_sizes
    differences, flipped = {}, 0
    for size in sizes:
        ours = known.get(size) if known else None
        if ours is None:
            ours = logits_of(session, images, size, workers=workers)
        if ours.shape != reference.shape:
            differences[size], flipped = math.inf, len(images)
            continue
        largest = float(np.abs(ours - reference).max())
        differences[size] = largest if math.isfinite(largest) else math.inf
        flipped = max(flipped, int((ours.argmax(1) != reference.argmax(1)).sum()))
    return Parity(len(images), differences, float(np.abs(reference).max()), flipped, tolerance)


def first_divergence(
    source: LoadedNetwork,
    traced: Traced,
    file: Path,
    feed: npt.NDArray[Any],
    images: Tensor,
    limit: float,
) -> str | None:
    """Return the path of the first module whose output differs between PyTorch and a file.

    Args:
        source: the network.
        traced: maps modules to values of the graph.
        file: the ONNX file.
        feed: a few images as the file takes them.
        images: the same images as the network takes them.
        limit: largest relative difference that does not count.
    """
    proto = onnx.load(str(file))
    known = {value for node in proto.graph.node for value in node.output}
    values = {path: name for path, name in traced.values.items() if name in known}
    expected = _module_outputs(source, images, set(values))
    values = {path: name for path, name in values.items() if path in expected}
    names = list(dict.fromkeys(values.values()))
    session = open_session(with_outputs(proto, names), threads=1, optimize=False)
    (found,) = list(run(session, feed, len(feed), names))
    answers = dict(zip(names, found, strict=True))
    for path, name in values.items():
        ours, theirs = answers[name].astype(np.float32), expected[path]
        if ours.shape != theirs.shape:
            continue  # a value that the exporter shaped otherwise, such as before a flatten
        scale = float(np.abs(theirs).max()) or 1.0
        if not float(np.abs(ours - theirs).max()) / scale <= limit:  # also if it is not a number
            return path
    return None


@torch.inference_mode()
def _module_outputs(
    source: LoadedNetwork, images: Tensor, paths: set[str]
) -> dict[str, npt.NDArray[np.float32]]:
    """Return each module's last output, copied before anything changes it in place."""
    outputs: dict[str, npt.NDArray[np.float32]] = {}

    def keep(path: str, value: object) -> None:
        if isinstance(value, torch.Tensor):
            outputs[path] = value.detach().clone().float().numpy()

    handles = [
        module.register_forward_hook(lambda _m, _i, value, path=path: keep(path, value))
        for path, module in source.model.named_modules()
        if path in paths
    ]
    try:
        source.model(images)
    finally:
        for handle in handles:
            handle.remove()
    return outputs
