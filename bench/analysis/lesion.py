"""The accuracy of a trained network without each of its blocks (`bench lesion`)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from bench.errors import BenchError
from bench.networks.blocks import Place, dropped, find_blocks, norm_ratios, swapped
from bench.networks.gradient_norms import gradient_norms
from bench.store.analyses import Analyses
from bench.system.devices import resolve_device
from bench.system.environment import describe_environment
from bench.targets.find import load_trained
from bench.training.evaluation import evaluate
from bench.training.layout import lay_out
from bench.training.setup import Split, build_network

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.data import Images
    from bench.store.analyses import AnalysisRecord
    from bench.targets.trained_run import TrainedRun


@dataclass(frozen=True)
class _Subject:
    """A trained network on its device, its blocks, and the test images it answers."""

    trained: TrainedRun
    split: Split
    images: Images
    places: list[Place]
    memory_format: torch.memory_format

    def accuracy(self) -> float:
        batches = self.split.evaluation(self.images, self.memory_format)
        return evaluate(self.trained.model, batches).accuracy


def measure_lesions(
    run: str | Path,
    *,
    results: str | Path,
    device: str,
    test_images: int | None,
    swaps: bool,
    say: Callable[[str], None],
) -> AnalysisRecord:
    """Measure what `bench.lesion` returns, whose arguments these are, and record it.

    Raises:
        BenchError: there is no such run, or its network has no such blocks.
        StorageError: the results folder cannot be written.
    """
    subject = _prepare(run, results, device, test_images)
    store = Analyses(subject.trained.root)
    store.prepare()
    rows = _rows(subject, swaps, say)
    name = subject.trained.record.run
    request = {"run": name, "test_images": test_images, "no_swaps": not swaps}
    request["weights"] = subject.trained.record.files["model.safetensors"]
    if len(subject.images) < len(subject.split.test):
        request["from_first"] = False  # analyses of the first images, made before, are others
    environment = describe_environment(subject.split.device, threads=torch.get_num_threads())
    record = store.publish("lesion", request, {"lesions": rows}, environment)
    say(f"recorded in {store.file(record.analysis)}")
    return record


def _rows(subject: _Subject, swaps: bool, say: Callable[[str], None]) -> list[dict[str, Any]]:
    places = subject.places
    with norm_ratios(places) as ratios:
        whole = subject.accuracy()
    gradients = _initial_gradients(subject)
    rows: list[dict[str, Any]] = [{"lesion": "none", "test_accuracy": whole}]
    for place in places:
        say(f"without {place.name}")
        with dropped(place):
            accuracy = subject.accuracy()
        row = {"lesion": "drop", "block": place.name, "test_accuracy": accuracy}
        row |= {"initial_gradient_norm": gradients.get(place.name)}
        rows.append(row | _quantiles(ratios[place.name]))
    for first, second in _pairs(places) if swaps else ():
        say(f"{first.name} and {second.name} swapped")
        with swapped(first, second):
            accuracy = subject.accuracy()
        row = {"lesion": "swap", "block": first.name, "other": second.name}
        rows.append(row | {"test_accuracy": accuracy})
    fixed = {"run": subject.trained.record.run, "images": len(subject.images)}
    return [{**fixed, **row, "accuracy_drop": whole - row["test_accuracy"]} for row in rows]


def _prepare(
    run: str | Path, results: str | Path, device: str, test_images: int | None
) -> _Subject:
    where = resolve_device(device)
    trained = load_trained(run, results=results)
    places = find_blocks(trained.model, f"run {trained.record.run} ({trained.request.model})")
    if trained.record.result.get("timing_only"):
        raise BenchError(
            f"run {trained.record.run} was trained on made-up images, which have no accuracy; "
            "name a run of another dataset"
        )
    split = Split.of(trained.dataset(), trained.request, where)
    images = split.test
    if test_images is not None and test_images < len(images):
        images = images.spread(test_images)
    memory_format = lay_out(trained.model, where, split.input_shape)
    trained.model.eval()
    return _Subject(trained, split, images, places, memory_format)


def _initial_gradients(subject: _Subject) -> dict[str, float]:
    """Return the gradient norms before training; none if the network started from other weights."""
    request, split = subject.trained.request, subject.split
    if request.initial_weights is not None or request.grown_from is not None:
        return {}
    model = build_network(request, split.dataset)
    memory_format = lay_out(model, split.device, split.input_shape)
    images, labels = next(split.training_batches(memory_format).epoch(0))
    return gradient_norms(model, find_blocks(model, request.model), images, labels)


def _quantiles(ratios: list[torch.Tensor]) -> dict[str, Any]:
    if not ratios:
        return {}
    low, middle, high = torch.cat(ratios).quantile(torch.tensor([0.1, 0.5, 0.9])).tolist()
    return {"norm_ratio": middle, "norm_ratio_low": low, "norm_ratio_high": high}


def _pairs(places: list[Place]) -> list[tuple[Place, Place]]:
    """Return the pairs of blocks of one stage that keep the shape and have equal parts."""

    def shapes(place: Place) -> list[tuple[str, torch.Size]]:
        return [(name, tensor.shape) for name, tensor in place.block.state_dict().items()]

    return [
        (first, second)
        for first, second in itertools.combinations([p for p in places if p.keeps_shape], 2)
        if first.parent is second.parent and shapes(first) == shapes(second)
    ]
