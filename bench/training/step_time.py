"""How long a training step takes on this machine, and how many steps a run has."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from bench.data import Dataset, Images
from bench.data.images import make_dataset
from bench.training.check import check_trainable
from bench.training.layout import lay_out
from bench.training.loop import Trainer
from bench.training.resources import Resources, torch_settings
from bench.training.setup import Split, build_network, load_data
from bench.training.sizes import DataSize, data_size, image_macs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.studies.run_request import RunRequest

TIMED_STEPS = 4
TIMED_MACS = 20 * 10**9  # of a timed step, forward: about a second on two cores with AVX2
# A forward pass alone, relative to forward, backward and update.
EVALUATION_COST = 1 / 3


def run_seconds(
    requests: Iterable[RunRequest], resources: Resources, *, share: float = 1.0
) -> dict[str, float]:
    """Return about how long each run takes, evaluations included: run id → seconds.

    Args:
        requests: the runs; some steps of each network are timed.
        resources: where and how they are trained.
        share: of the steps of a network's runs, the largest part to time; one step always is. In a
            single one, the warm-up counts.

    Raises:
        BenchError: a run could not be trained.
    """
    networks: dict[str, dict[str, RunRequest]] = {}
    for request in requests:
        networks.setdefault(request.seedless_hash, {})[request.run_id] = request
    seconds: dict[str, float] = {}
    for runs in networks.values():
        steps = {run: steps_of(request) for run, request in runs.items()}
        timed = min(TIMED_STEPS, max(1, round(share * sum(steps.values()))))
        step_seconds = time_steps(next(iter(runs.values())), resources, timed)
        seconds |= {run: count * step_seconds for run, count in steps.items()}
    return seconds


def timed_steps(*, compiled: bool, cuda_graph: bool) -> str:
    """Word what `run_seconds` times: it neither compiles nor records graphs, which takes long."""
    options = {"--compile": compiled, "--cuda-graph": cuda_graph}
    left_out = " or ".join(option for option, wanted in options.items() if wanted)
    return "a few timed steps" + (f" without {left_out}" if left_out else "")


def side_by_side(seconds: Iterable[float], workers: int) -> float:
    """Return how long runs take, *workers* at a time: at least as long as the longest."""
    left = [each for each in seconds if each]
    return max(sum(left) / min(workers, len(left)), *left) if left else 0.0


def time_steps(request: RunRequest, resources: Resources, steps: int = TIMED_STEPS) -> float:
    """Return the median seconds of a training step of the request's network, data included.

    Of several *steps*, the first is a warm-up. If a step is large, a CPU times fewer images and the
    time is scaled; if the images are not at hand, noise of their shape replaces them.
    """
    size = data_size(request)
    dataset = load_data(request) if size.on_hand else None
    if dataset is not None:
        check_trainable(request, dataset)
    images = _affordable(request, size) if resources.device == "cpu" else request.recipe.batch_size
    timed = request.with_recipe(batch_size=images, validation_fraction=0.0)
    if dataset is None:
        dataset = _noise(request.dataset, size, images)
        check_trainable(timed, dataset)
    device = torch.device(resources.device)
    with torch_settings(timed, resources):
        split = Split.of(dataset, timed, device)
        model = build_network(timed, dataset)
        batches = split.training_batches(lay_out(model, device, split.input_shape))
        trainer = Trainer(
            model, batches, timed.recipe, seed=0, device=device, precision=request.precision
        )
        return _median_step(trainer, steps) * request.recipe.batch_size / images


def _affordable(request: RunRequest, size: DataSize) -> int:
    """Return the images of a timed step: the batch, or as many as a CPU does in seconds."""
    macs = image_macs(request, size)
    return min(request.recipe.batch_size, max(2, TIMED_MACS // max(1, macs)))


def _noise(name: str, size: DataSize, images: int) -> Dataset:
    """Return images of the shape of a dataset that is not at hand."""
    shape = (images * TIMED_STEPS, *size.shape)
    pixels = torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator())
    some = Images(pixels, torch.arange(len(pixels)) % size.classes)
    classes = tuple(map(str, range(size.classes)))
    return make_dataset(name, classes, some, some, timing_only=True)


def _median_step(trainer: Trainer, steps: int) -> float:
    trainer.model.train()
    seconds = []
    started = time.perf_counter()
    last = max(0, trainer.recipe.epochs - 1)  # whose images are the largest if they grow
    for images, labels in trainer.batches.epoch(last):
        trainer.step(images, labels)
        trainer.read_losses()  # waits for the device
        seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
        if len(seconds) >= steps:
            break
    timed = sorted(seconds[1:] or seconds)
    return timed[len(timed) // 2]


def steps_of(request: RunRequest) -> float:
    """Return the number of steps of a run, its evaluations counted as parts of steps."""
    size = data_size(request)
    held_out = round(size.train * request.recipe.validation_fraction)
    train, epochs = size.train - held_out, request.recipe.epochs
    scored = held_out * epochs + train + size.test
    if request.recipe.test_every_epoch:
        scored += size.test * epochs
    return (train * epochs + EVALUATION_COST * scored) / request.recipe.batch_size
