"""The loss of trained networks along filter-normalised random directions (`bench landscape`)."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from bench.errors import BenchError, check_known
from bench.networks.directions import filter_normalised, values_along
from bench.store.analyses import Analyses
from bench.system.devices import resolve_device
from bench.system.environment import describe_environment
from bench.targets.find import find_networks
from bench.training.evaluation import evaluate
from bench.training.layout import lay_out
from bench.training.setup import Split

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bench.data import Images
    from bench.store.analyses import AnalysisRecord
    from bench.targets.network import NamedNetwork
    from bench.targets.trained_run import TrainedRun
    from bench.training.evaluation import Evaluation

SPLITS = ("train", "test")
FEWEST_POINTS = 3  # a middle and two sides
_TIMED = 2  # places after which the time left is estimated


@dataclass(frozen=True)
class Slice:
    """The arguments of `bench.landscape`."""

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


def measure_landscapes(
    runs: str | Path | Sequence[str | Path],
    *,
    results: str | Path,
    device: str,
    plane: bool,
    span: float,
    points: int,
    split: str,
    images: int | None,
    seed: int,
    say: Callable[[str], None],
) -> list[AnalysisRecord]:
    """Measure what `bench.landscape` returns, whose arguments these are, and record it.

    Raises:
        BenchError: there is no such run, or a number is impossible.
        StorageError: the results folder cannot be written.
    """
    if not 0 < span < float("inf"):
        raise BenchError(f"--span {span:g}: it must be above 0; 1 moves a filter by its length")
    if points < FEWEST_POINTS:
        raise BenchError(f"--points {points}: it must be at least {FEWEST_POINTS}, such as 21")
    check_known("--split", split, SPLITS)
    wanted = Slice(plane, span, points, split, images, seed)
    where = resolve_device(device)
    found = find_networks(runs, results=results, takes=("run",))
    return [_measure(network, where, wanted, say) for network in found]


def _measure(
    network: NamedNetwork, where: torch.device, wanted: Slice, say: Callable[[str], None]
) -> AnalysisRecord:
    """Measure one network, and record it."""
    trained = network.load_run()
    name = trained.record.run
    if trained.record.result.get("timing_only"):
        raise BenchError(f"run {name} was trained on made-up images; name a run of another dataset")
    store = Analyses(trained.root)
    store.prepare()
    say(f"landscape of {name}: {wanted.points**wanted.axes} places")
    parts = Split.of(trained.dataset(), trained.request, where)
    kept = parts.train if wanted.split == "train" else parts.test
    if wanted.images is not None and wanted.images < len(kept):
        kept = kept.spread(wanted.images)
    wanted = replace(wanted, images=len(kept))
    rows = _rows(trained, parts, kept, wanted, say)
    environment = describe_environment(where, threads=torch.get_num_threads())
    weights = trained.record.files["model.safetensors"]
    request = {"run": name, "weights": weights, **asdict(wanted)}
    record = store.publish("landscape", request, {"landscapes": rows}, environment)
    say(f"recorded in {store.file(record.analysis)}")
    return record


def _rows(
    trained: TrainedRun, parts: Split, kept: Images, wanted: Slice, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    model = trained.model
    memory_format = lay_out(model, parts.device, parts.input_shape)
    weights = dict(model.named_parameters())
    directions = [filter_normalised(weights, wanted.seed, axis) for axis in range(wanted.axes)]
    fixed: dict[str, Any] = {"run": trained.record.run, "model": trained.request.model}
    fixed |= {"split": wanted.split, "images": len(kept), "seed": wanted.seed}

    def score() -> Evaluation:
        return evaluate(model, parts.evaluation(kept, memory_format))

    rows: list[dict[str, Any]] = []
    begun = time.monotonic()
    steps = [wanted.steps] * wanted.axes
    for place, scored in values_along(weights, directions, steps, score):
        x, y = (*place, None)[:2]
        rows.append({**fixed, "x": x, "y": y, "loss": scored.loss, "accuracy": scored.accuracy})
        if len(rows) == _TIMED:
            left = (time.monotonic() - begun) * (wanted.points**wanted.axes / _TIMED - 1)
            say(f"about {left:.0f} s left")
    return rows
