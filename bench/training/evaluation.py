"""Evaluate a network on one split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@dataclass(frozen=True)
class Evaluation:
    """A network's results on one split.

    Attributes:
        loss: mean cross-entropy, without label smoothing.
        accuracy: fraction of images classified correctly, 0…1.
        predictions: class of the largest logit, int64, N, on the CPU.
        confidence: softmax probability of that class, float32, N, on the CPU.
        labels: int64, N, on the CPU.
    """

    loss: float
    accuracy: float
    predictions: Tensor
    confidence: Tensor
    labels: Tensor

    def confusion(self, classes: int) -> Tensor:
        """Return counts, int64, classes × classes: rows are true, columns predicted classes."""
        index = self.labels * classes + self.predictions
        return torch.bincount(index, minlength=classes * classes).reshape(classes, classes)


@torch.no_grad()  # not inference_mode: the network may keep a tensor, and train with it next
def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    mirrored: bool = False,
    after_batch: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Evaluate *model* over *batches* of (float images, labels).

    With *mirrored*, the logits of each image and its mirror image are averaged. The model is in
    evaluation mode meanwhile, and its training mode is restored.
    """
    was_training = model.training
    model.eval()
    losses, predictions, confidences, labels = [], [], [], []
    for images, target in batches:
        logits = model(images).float()
        if mirrored:
            logits = (logits + model(images.flip(3)).float()) / 2
        losses.append(F.cross_entropy(logits, target, reduction="sum"))
        confidence, predicted = logits.softmax(1).max(1)
        predictions.append(predicted)
        confidences.append(confidence)
        labels.append(target)
        after_batch()
    model.train(was_training)
    predicted, truth = torch.cat(predictions), torch.cat(labels)
    return Evaluation(
        loss=(torch.stack(losses).sum() / len(truth)).item(),
        accuracy=(predicted == truth).sum().item() / len(truth),
        predictions=predicted.cpu(),
        confidence=torch.cat(confidences).cpu(),
        labels=truth.cpu(),
    )
