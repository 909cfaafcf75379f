"""`bench.landscape`: the loss of trained networks along filter-normalised random directions."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pandas as pd

    from bench.data import Images
    from bench.store.analyses import AnalysisRecord
    from bench.targets.trained_run import Trained
    from bench.training.setup import Split

SPLITS = ("train", "test")
FEWEST_POINTS = 3  # a middle and two sides
_TIMED = 2  # places after which the time left is estimated


@dataclass(frozen=True)
class Slice:
    """What is asked of each network; the arguments of `landscape`."""

    plane: bool
    span: float
    points: int
    split: str
    images: int | None
    seed: int

    @property
    def axes(self) -> int:
        """Number of directions."""
        return 2 if self.plane else 1

    @property
    def steps(self) -> list[float]:
        """How far to go along each of them."""
        whole = self.points - 1
        return [round(-self.span + 2 * self.span * i / whole, 9) for i in range(self.points)]


def landscape(
    runs: Sequence[str | Path],
    *,
    results: str | Path = "bench-runs",
    device: str = "auto",
    plane: bool = False,
    span: float = 1.0,
    points: int = 21,
    split: str = "train",
    images: int | None = 1000,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> pd.DataFrame:
    """Measure the loss on a line, or a plane, through each network's trained weights.

    Li et al. 2018, section 4. Batch norm keeps its stored statistics, as in the paper's code.
    Networks whose tensors share names and shapes are moved in the same Gaussian directions, each
    scaled to its own filters.

    Args:
        runs: ids, unambiguous beginnings of ids, or folders of finished runs.
        results: the results folder, unless a run is a folder.
        device: auto, cpu, cuda, cuda:N or mps.
        plane: go in two directions at once instead of one.
        span: how far to go either way; 1 moves each filter by its own length.
        points: places along each direction; an odd number has the trained network among them.
        split: which images the loss is of: `train` (not augmented) or `test`.
        images: so many of them, spread evenly over the set; None for all.
        seed: random seed of the directions.
        say: told what is being measured.

    Returns:
        A row of the table `landscapes` for each place: run, model, split, images, seed, x and y
        (steps; y is missing on a line), loss (mean cross-entropy) and accuracy (0…1). They are
        recorded in the results folder, in the place of older ones of the same run and arguments.

    Raises:
        BenchError: there is no such run, or a number is impossible.
        StorageError: the results folder cannot be written.
    """
    from bench.store.tables.frames import analysed_frame

    _check(span, points, split)
    asked = Slice(plane, span, points, split, images, seed)
    records = [_measure(run, results, device, asked, say) for run in runs]
    return analysed_frame(records, "landscapes")


def _check(span: float, points: int, split: str) -> None:
    if not 0 < span < float("inf"):
        raise BenchError(f"--span {span:g}: it must be above 0; 1 moves a filter by its length")
    if points < FEWEST_POINTS:
        raise BenchError(f"--points {points}: it must be at least {FEWEST_POINTS}, such as 21")
    if split not in SPLITS:
        raise BenchError(f"--split {split}: it must be {' or '.join(SPLITS)}")


def _measure(
    run: str | Path, results: str | Path, device: str, asked: Slice, say: Callable[[str], None]
) -> AnalysisRecord:
    """Measure one network, and record it."""
    import torch

    from bench.store.analyses import Analyses
    from bench.system.devices import resolve_device
    from bench.system.environment import describe_environment
    from bench.targets.trained_run import load_trained
    from bench.training.setup import Split, load_data

    where = resolve_device(device)
    trained = load_trained(run, results=results)
    name = trained.record.run
    if trained.record.result.get("timing_only"):
        raise BenchError(f"run {name} was trained on made-up images; name a run of another dataset")
    store = Analyses(trained.root)
    store.prepare()
    say(f"landscape of {name}: {asked.points**asked.axes} places")
    parts = Split.of(load_data(trained.request), trained.request, where)
    kept = parts.train if asked.split == "train" else parts.test
    if asked.images is not None and asked.images < len(kept):
        kept = kept.subset(torch.linspace(0, len(kept) - 1, asked.images).long())
    asked = replace(asked, images=len(kept))
    rows = _rows(trained, parts, kept, asked, say)
    environment = describe_environment(where, threads=torch.get_num_threads())
    request = {"run": name, **asdict(asked)}
    record = store.publish("landscape", request, {"landscapes": rows}, environment)
    say(f"recorded in {store.file(record.analysis)}")
    return record


def _rows(
    trained: Trained, parts: Split, kept: Images, asked: Slice, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    from bench.networks.directions import filter_normalised, values_along
    from bench.training.evaluation import evaluate
    from bench.training.layout import preferred_memory_format

    model = trained.model.to(parts.device, memory_format=preferred_memory_format(parts.device))  # type: ignore[call-overload]
    weights = dict(model.named_parameters())
    directions = [filter_normalised(weights, asked.seed, axis) for axis in range(asked.axes)]
    fixed = {
        "run": trained.record.run, "model": trained.request.model, "split": asked.split,
        "images": len(kept), "seed": asked.seed,
    }  # fmt: skip
    rows: list[dict[str, Any]] = []
    begun = time.monotonic()
    for place, scored in values_along(
        weights, directions, [asked.steps] * asked.axes,
        lambda: evaluate(model, parts.evaluation(kept)),
    ):  # fmt: skip
        x, y = (*place, None)[:2]
        rows.append({**fixed, "x": x, "y": y, "loss": scored.loss, "accuracy": scored.accuracy})
        if len(rows) == _TIMED:
            left = (time.monotonic() - begun) * (asked.points**asked.axes / _TIMED - 1)
            say(f"about {left:.0f} s left")
    return rows
