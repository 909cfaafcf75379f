"""`bench.landscape`: the loss of trained networks along filter-normalised random directions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pandas as pd

COLUMNS = ("run", "model", "split", "images", "seed", "x", "y", "loss", "accuracy")
SPLITS = ("train", "test")
FEWEST_POINTS = 3  # a middle and two sides


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
        A row a place: run, model, split, images, seed, x and y (steps; y is missing on a line),
        loss (mean cross-entropy) and accuracy (0…1).

    Raises:
        BenchError: there is no such run, or a number is impossible.
    """
    import pandas as pd

    _check(span, points, split)
    rows = []
    for run in runs:
        rows += _rows(
            run, results, device, 2 if plane else 1, span, points, split, images, seed, say
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _check(span: float, points: int, split: str) -> None:
    if not 0 < span < float("inf"):
        raise BenchError(f"--span {span:g}: it must be above 0; 1 moves a filter by its length")
    if points < FEWEST_POINTS:
        raise BenchError(f"--points {points}: it must be at least {FEWEST_POINTS}, such as 21")
    if split not in SPLITS:
        raise BenchError(f"--split {split}: it must be {' or '.join(SPLITS)}")


def _rows(
    run: str | Path, results: str | Path, device: str, axes: int, span: float, points: int,
    split: str, count: int | None, seed: int, say: Callable[[str], None],
) -> list[dict[str, object]]:  # fmt: skip
    import torch

    from bench.devices import resolve_device
    from bench.landscapes.directions import filter_normalised, values_along
    from bench.trained import load_trained
    from bench.training.evaluation import evaluate
    from bench.training.layout import preferred_memory_format
    from bench.training.setup import Split, load_data

    where = resolve_device(device)
    trained = load_trained(run, results=results)
    name, request = trained.record.run, trained.request
    if trained.record.result.get("timing_only"):
        raise BenchError(f"run {name} was trained on made-up images; name a run of another dataset")
    say(f"landscape of {name}: {points**axes} places")
    parts = Split.of(load_data(request), request, where)
    kept = parts.train if split == "train" else parts.test
    if count is not None and count < len(kept):
        kept = kept.subset(torch.linspace(0, len(kept) - 1, count).long())
    model = trained.model.to(where, memory_format=preferred_memory_format(where))  # type: ignore[call-overload]
    weights = dict(model.named_parameters())
    directions = [filter_normalised(weights, seed, axis) for axis in range(axes)]
    steps = [round(-span + 2 * span * place / (points - 1), 9) for place in range(points)]
    fixed = {"run": name, "model": request.model, "split": split, "images": len(kept), "seed": seed}
    rows: list[dict[str, object]] = []
    for place, scored in values_along(
        weights, directions, [steps] * axes, lambda: evaluate(model, parts.evaluation(kept))
    ):
        x, y = (*place, None)[:2]
        rows.append({**fixed, "x": x, "y": y, "loss": scored.loss, "accuracy": scored.accuracy})
    return rows
