"""Estimate how long a study takes on this machine, and how much disk space it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.filesize import decimal

from bench.launch.learning_rates import as_recorded, tuning_requests
from bench.launch.workers import Execution, allot
from bench.store import Store
from bench.studies.recipe import recipe_name
from bench.training.sizes import blank_network, data_size
from bench.training.step_time import run_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.studies import Plan
    from bench.studies.run_request import RunRequest

PREDICTION_BYTES = 12  # class, confidence and label of a test image


def estimate_plan(plan: Plan, how: Execution) -> list[dict[str, Any]]:
    """Describe every run of a plan, and estimate the seconds that it still needs.

    A few steps of each network are timed.

    Returns:
        For each run: run, variant, seed, model, options, dataset, epochs, status (`to do`
        or what is recorded), workers and seconds of one worker (0 where nothing is left).

    Raises:
        BenchError: a run that is still to be done could not be trained.
    """
    store = Store(how.results)
    plan, _ = as_recorded(plan, store)
    workers, resources = allot(plan, how)
    named = {r.run_id: (v.name, s) for v in plan.variants for s, r in v.requests.items()}
    requests = {r.run_id: r for r in [*tuning_requests(plan), *plan.requests]}
    records = {run: None if how.force else store.read_run(run) for run in requests}
    seconds = run_seconds([requests[run] for run in requests if records[run] is None], resources)
    rows = []
    for run, request in requests.items():
        record = records[run]
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
                "seconds": seconds.get(run, 0.0),
            }
        )
    return rows


@dataclass(frozen=True)
class Footprint:
    """Bytes on disk.

    Attributes:
        results: weights and predictions of finished runs.
        checkpoints: of the runs trained at a time.
        data: downloads and decoded images still missing, estimated.
        notes: what was assumed about the data.
    """

    results: int
    checkpoints: int
    data: int
    notes: tuple[str, ...]

    def __str__(self) -> str:
        """Return one readable line."""
        parts = [
            f"{decimal(self.results)} of results",
            f"{decimal(self.checkpoints)} of checkpoints",
        ]
        if self.data:
            parts.append(f"{decimal(self.data)} of images")
        noted = f" ({'; '.join(self.notes)})" if self.notes else ""
        return f"disk needed: about {', '.join(parts)}{noted}"


def footprint(requests: Sequence[RunRequest], workers: int) -> Footprint:
    """Count the disk space that *requests*, the runs still to do, need.

    Raises:
        BenchError: a dataset cannot be used.
    """
    weights: dict[object, int] = {}
    data: dict[object, int] = {}
    results, notes = 0, []
    for request in requests:
        size = data_size(request)
        network = (request.model, *sorted(request.options.items()))
        if network not in weights:
            tensors = blank_network(request, size).state_dict().values()
            weights[network] = sum(t.numel() * t.element_size() for t in tensors)
        results += weights[network] + request.evaluate_test * size.test * PREDICTION_BYTES
        if not size.on_hand:
            data[request.dataset, size.side] = size.image_bytes
        if size.note:
            notes.append(size.note)
    # A checkpoint holds weights and momentum; averaged and slow weights if the recipe has them.
    largest = max(weights.values(), default=0)
    recipes = [request.recipe for request in requests]
    copies = max((2 + bool(r.ema_decay) + bool(r.lookahead_steps) for r in recipes), default=0)
    return Footprint(
        results, largest * copies * workers, sum(data.values()), tuple(dict.fromkeys(notes))
    )
