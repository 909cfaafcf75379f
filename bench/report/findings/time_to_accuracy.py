"""Time to accuracy: how long a run trained until it reached a validation accuracy.

The measure of DAWNBench (Coleman et al. 2017), on validation instead of test images: a test set
that decides when to stop no longer tests anything.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.studies.recipe import get_recipe
from bench.system.guessing import ROUNDING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd


@dataclass(frozen=True)
class TimeToAccuracy:
    """When a run first reached an accuracy.

    Attributes:
        accuracy: the validation accuracy to reach, 0…1.
        seconds: training time up to the end of the first epoch at or above it, evaluation
            not included; None if no epoch reached it.
        epoch: that epoch, from 1, or None.
        best: the highest validation accuracy of any epoch, or None if none was recorded.
    """

    accuracy: float
    seconds: float | None
    epoch: int | None
    best: float | None

    def __str__(self) -> str:
        """Return one line for a person."""
        goal = f"validation accuracy {self.accuracy * 100:g} %"
        if self.seconds is not None:
            return f"{goal} reached after {self.seconds:.1f} s of training, in epoch {self.epoch}"
        if self.best is None:
            return f"{goal} not reached: no epoch was recorded"
        return f"{goal} not reached; the best of an epoch is {self.best * 100:.2f} %"


def time_to_accuracy(epochs: pd.DataFrame, accuracy: float) -> TimeToAccuracy:
    """Find when one run first reached *accuracy*.

    Args:
        epochs: the run's rows of the `epochs` table.
        accuracy: validation accuracy, 0…1.
    """
    rows = epochs.sort_values("epoch").drop_duplicates("epoch")
    accuracies = rows["validation_accuracy"]
    reached = rows.loc[accuracies >= accuracy - ROUNDING, "epoch"]
    best = None if accuracies.isna().all() else float(accuracies.max())
    if reached.empty:
        return TimeToAccuracy(accuracy, None, None, best)
    first = int(reached.iloc[0])
    seconds = float(rows.loc[rows["epoch"] <= first, "seconds"].sum())
    return TimeToAccuracy(accuracy, seconds, first, best)


@dataclass(frozen=True)
class TimeToAccuracyOverSeeds:
    """How long the runs of one variant trained to an accuracy.

    Attributes:
        accuracy: the validation accuracy to reach, 0…1.
        seconds: median over the runs that reached it, None if none did.
        reached: number of runs that reached it.
        runs: number of runs.
    """

    accuracy: float
    seconds: float | None
    reached: int
    runs: int

    def __str__(self) -> str:
        """Return a table's cell: seconds, and how many runs reached it unless all did."""
        if self.seconds is None:
            return f"- (0 of {self.runs})"
        count = "" if self.reached == self.runs else f" ({self.reached} of {self.runs})"
        return f"{self.seconds:.1f}{count}"


def time_to_accuracy_over_seeds(
    epochs: pd.DataFrame, runs: Iterable[str], accuracy: float
) -> TimeToAccuracyOverSeeds:
    """Find when the *runs* of one variant first reached *accuracy*.

    Args:
        epochs: the study's `epochs` table.
        runs: the ids of those that trained to the end or diverged.
        accuracy: validation accuracy, 0…1.
    """
    by_run = dict(iter(epochs.groupby("run")))
    times = [time_to_accuracy(by_run.get(run, epochs[:0]), accuracy).seconds for run in runs]
    reached = [seconds for seconds in times if seconds is not None]
    middle = statistics.median(reached) if reached else None
    return TimeToAccuracyOverSeeds(accuracy, middle, len(reached), len(times))


def check_target_accuracy(
    accuracy: float, recipe: str, dataset: str, settings: Mapping[str, Any]
) -> None:
    """Refuse a `--target-accuracy` that no validation accuracy can be compared with.

    Raises:
        BenchError: the run holds out no validation images, or has made-up ones.
    """
    option = f"--target-accuracy {accuracy * 100:g}"
    if dataset == "synthetic":
        raise BenchError(f"{option}: made-up images have no accuracy; use another --dataset")
    name = str(settings.get("recipe", recipe))
    if not settings.get("validation_fraction", get_recipe(name).validation_fraction):
        raise BenchError(
            f"{option}: recipe '{name}' holds no validation images out, and the test images are "
            "not for this; add --set validation_fraction=0.1"
        )
