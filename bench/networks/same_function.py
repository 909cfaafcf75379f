"""Checking on real images that a grown network computes what its parent does."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bench.errors import BenchError
from bench.system.caller_state import caller_state

if TYPE_CHECKING:
    from collections.abc import Iterable

# Sums over copied channels are rounded differently, and the differences add up over the layers.
LIMIT = 1e-4
NEAR_TIE = 2  # a prediction may flip where two logits are closer than twice the difference


@dataclass(frozen=True)
class Proof:
    """The comparison of a parent and a grown network.

    Attributes:
        images: number of images compared.
        split: which images: `validation`, or `training` where none are held out.
        max_abs_diff: largest difference of any logit.
        largest_logit: largest absolute logit of the parent.
        parent_accuracy: of the parent on these images, 0…1.
        accuracy: of the grown network.
        flipped_predictions: number of images whose predicted class differs.
    """

    images: int
    split: str
    max_abs_diff: float
    largest_logit: float
    parent_accuracy: float
    accuracy: float
    flipped_predictions: int

    @classmethod
    def of(cls, document: dict[str, Any]) -> Proof:
        """Read a proof back from a document that holds its fields among others."""
        return cls(**{field.name: document[field.name] for field in fields(cls)})

    def __str__(self) -> str:
        """Return one line for a user."""
        same = self.parent_accuracy == self.accuracy
        changed = "" if same else f" (was {self.parent_accuracy:.4f})"
        return (
            f"largest logit difference {self.max_abs_diff:.2g} on {self.images:,} {self.split} "
            f"images (largest logit {self.largest_logit:.3g}), {'the same ' if same else ''}"
            f"accuracy {self.accuracy:.4f}{changed}"
        )


@caller_state()
@torch.inference_mode()
def prove(
    parent: nn.Module, child: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, split: str
) -> Proof:
    """Compare two networks in evaluation mode over *batches* of (float images, labels).

    Raises:
        BenchError: they do not compute the same, within rounding.
    """
    # TF32, which convolutions of a GPU use by default, rounds by more than the limit.
    cudnn: Any = torch.backends.cudnn  # mypy does not find its part `conv`
    cudnn.conv.fp32_precision = torch.backends.cuda.matmul.fp32_precision = "ieee"
    before, after, truth = [], [], []
    parent.eval()
    child.eval()
    for images, labels in batches:
        before.append(parent(images).float())
        after.append(child(images).float())
        truth.append(labels)
    child.train()
    old, new, target = torch.cat(before), torch.cat(after), torch.cat(truth)
    proof = Proof(
        images=len(target),
        split=split,
        max_abs_diff=(old - new).abs().max().item(),
        largest_logit=old.abs().max().item(),
        parent_accuracy=(old.argmax(1) == target).double().mean().item(),
        accuracy=(new.argmax(1) == target).double().mean().item(),
        flipped_predictions=int((old.argmax(1) != new.argmax(1)).sum()),
    )
    top = old.topk(min(2, old.shape[1]), dim=1).values
    tie = (top[:, 0] - top[:, -1]) <= NEAR_TIE * proof.max_abs_diff
    wrong = (old.argmax(1) != new.argmax(1)) & ~tie
    if not proof.max_abs_diff <= LIMIT * max(1.0, proof.largest_logit) or bool(wrong.any()):
        raise BenchError(f"the grown network does not compute what its parent does: {proof}")
    return proof
