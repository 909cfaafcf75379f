"""Values that change during a training: the learning rate by step, the input size by epoch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.studies.recipe import Recipe


def learning_rate_at(recipe: Recipe, step: int, steps: int, peak: float | None = None) -> float:
    """Return the learning rate of *step* (from 0) in a training of *steps* steps.

    *peak* is the schedule's highest rate (default: the recipe's).
    """
    peak = recipe.learning_rate if peak is None else peak
    warmup = round(recipe.warmup_fraction * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * _decay(recipe, progress, step / steps)


def side_at(recipe: Recipe, epoch: int, full: int) -> int:
    """Return the height and width in pixels of the images of *epoch* (from 0).

    It grows linearly from the recipe's `initial_size` and reaches *full* after two thirds of the
    epochs (rounded down, so that a single epoch has the full size).
    """
    growing = recipe.epochs * 2 // 3
    done = 1.0 if epoch >= growing else epoch / growing
    return max(1, round(full * (recipe.initial_size + (1 - recipe.initial_size) * done)))


def _decay(recipe: Recipe, progress: float, share: float) -> float:
    """Return the factor on the peak rate; *progress* runs from 0 to 1 after the warm-up."""
    match recipe.schedule:
        case "constant":
            return 1.0
        case "one_cycle":
            return 1.0 - progress
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * progress))
        case "step":
            return 0.1 ** sum(share >= milestone for milestone in recipe.milestones)
