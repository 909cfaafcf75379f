"""Time to accuracy: how long a run trained until its validation images were answered well enough.

The measure of DAWNBench (Coleman et al. 2017), on validation images: what is chosen or stopped by
the test set is no longer a test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd


@dataclass(frozen=True)
class TimeToAccuracy:
    """When a run first reached an accuracy.

    Attributes:
        target: the validation accuracy to reach, 0…1.
        seconds: training time up to the end of the first epoch at or above it, evaluation
            not included; None if no epoch reached it.
        epoch: that epoch, from 1, or None.
        best: the highest validation accuracy of any epoch, or None if none was recorded.
    """

    target: float
    seconds: float | None
    epoch: int | None
    best: float | None

    def __str__(self) -> str:
        """One line for a person."""
        goal = f"validation accuracy {self.target:g}"
        if self.seconds is not None:
            return f"{goal} reached after {self.seconds:.1f} s of training, in epoch {self.epoch}"
        if self.best is None:
            return f"{goal} not reached: no epoch was recorded"
        return f"{goal} not reached; the best of an epoch is {self.best:.4f}"


def time_to_accuracy(epochs: pd.DataFrame, target: float) -> TimeToAccuracy:
    """Find when one run reached *target*.

    Args:
        epochs: the run's rows of the `epochs` table.
        target: validation accuracy, 0…1.
    """
    rows = epochs.sort_values("epoch").drop_duplicates("epoch")
    accuracies = rows["validation_accuracy"]
    reached = rows.loc[accuracies >= target, "epoch"]
    best = None if accuracies.isna().all() else float(accuracies.max())
    if reached.empty:
        return TimeToAccuracy(target, None, None, best)
    first = int(reached.iloc[0])
    seconds = float(rows.loc[rows["epoch"] <= first, "seconds"].sum())
    return TimeToAccuracy(target, seconds, first, best)


def check_target(target: float, recipe: str, dataset: str, settings: Mapping[str, Any]) -> None:
    """Refuse a target that no validation accuracy will be compared with.

    Raises:
        BenchError: it is no share, or the run holds no validation images out.
    """
    from bench.training.recipe import get_recipe

    option = f"--target-accuracy {target:g}"
    if not 0 < target <= 1:
        raise BenchError(f"{option}: an accuracy is above 0 and at most 1, such as 0.94")
    if dataset == "synthetic":
        raise BenchError(f"{option}: made-up images have no accuracy; use another --dataset")
    name = str(settings.get("recipe", recipe))
    if not settings.get("validation_fraction", get_recipe(name).validation_fraction):
        raise BenchError(
            f"{option}: recipe '{name}' holds no validation images out, and the test images are "
            "not for this; add --set validation_fraction=0.1"
        )
