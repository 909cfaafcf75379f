"""How long a study will take here, from a few timed steps of each network."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

from bench.store import Store
from bench.training.check import check_trainable, probe
from bench.training.loop import Trainer
from bench.training.setup import Split, build_network, load_data, preferred_memory_format

if TYPE_CHECKING:
    from bench.launch.execution import Execution
    from bench.request import RunRequest
    from bench.studies import Plan
    from bench.training.resources import Resources

TIMED_STEPS = 4  # the first is a warm-up
# A forward pass alone, against forward, backward and update.
EVALUATION_COST = 1 / 3


def estimate_plan(plan: Plan, how: Execution) -> list[dict[str, Any]]:
    """Describe every run of a plan, and estimate the seconds that it still needs.

    Returns:
        For each run: run, variant, seed, model, options, dataset, epochs, status (`to do`
        or what is recorded), workers and seconds of one worker (0 where nothing is left).

    Raises:
        BenchError: a run that is still to be done could not be trained.
    """
    from bench.launch.execution import allot
    from bench.report.trained import recipe_name
    from bench.training.tuning import tuning_requests

    store = Store(how.results)
    workers, resources = allot(plan, how, how.torch_device)
    step_seconds: dict[str, float] = {}
    named = {r.run_id: (v.name, s) for v in plan.variants for s, r in v.requests.items()}
    tuned = tuning_requests(plan) if plan.tune else []
    requests = {r.run_id: r for r in [*tuned, *plan.requests]}
    rows = []
    for run, request in requests.items():
        record = None if how.force else store.read_run(run)
        seconds = 0.0
        if record is None:
            network = probe(request).hash
            if network not in step_seconds:
                step_seconds[network] = time_steps(request, resources)
            seconds = steps_of(request) * step_seconds[network]
        variant, seed = named.get(run, ("tuning", request.seed))
        rows.append(
            {
                "run": run,
                "variant": variant,
                "seed": seed,
                "model": request.model,
                "options": " ".join(f"{k}={v}" for k, v in request.options.items()) or None,
                "dataset": request.dataset,
                "recipe": recipe_name(request.recipe.model_dump(mode="json")),
                "epochs": request.recipe.epochs,
                "status": record.status if record else "to do",
                "workers": workers,
                "seconds": seconds,
            }
        )
    return rows


def time_steps(request: RunRequest, resources: Resources) -> float:
    """Median seconds of a training step of the request's network, data included."""
    dataset = load_data(request)
    check_trainable(request, dataset)
    device = torch.device(resources.device)
    memory_format = preferred_memory_format(device)
    before = torch.get_num_threads()
    torch.set_num_threads(resources.threads)
    try:
        split = Split.of(dataset, request, device)
        model = build_network(request, dataset)
        model = model.to(device, memory_format=memory_format)  # type: ignore[call-overload]
        batches = split.training_batches(memory_format)
        trainer = Trainer(
            model, batches, request.recipe,
            seed=request.seed, device=device, precision=request.precision,
        )  # fmt: skip
        return _median_step(trainer)
    finally:
        torch.set_num_threads(before)


def _median_step(trainer: Trainer) -> float:
    trainer.model.train()
    seconds = []
    started = time.perf_counter()
    for images, labels in trainer.batches.epoch(0):
        trainer.step(images, labels)
        trainer.read_losses()  # waits for the device
        seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
        if len(seconds) >= TIMED_STEPS:
            break
    timed = sorted(seconds[1:] or seconds)
    return timed[len(timed) // 2]


def steps_of(request: RunRequest) -> float:
    """Steps of a run, with its evaluations counted as parts of steps."""
    dataset = load_data(request)
    held_out = round(len(dataset.train) * request.recipe.validation_fraction)
    train, epochs = len(dataset.train) - held_out, request.recipe.epochs
    scored = held_out * epochs + train + len(dataset.test)
    if request.recipe.test_every_epoch:
        scored += len(dataset.test) * epochs
    return (train * epochs + EVALUATION_COST * scored) / request.recipe.batch_size
