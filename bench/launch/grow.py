"""`bench.grow`: from a trained run to a larger network that computes the same, trained on."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.networks.nesting import check_nesting, configuration

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from bench.studies.request import RunRequest
    from bench.targets.trained_run import TrainedRun


def grow(
    run: str | Path,
    to: str,
    *,
    width: int | None = None,
    epochs: int | None = None,
    settings: dict[str, Any] | None = None,
    **execution: Any,
) -> pd.DataFrame:
    """Grow a trained run to a larger network that computes the same, prove it, train on.

    The new run has its parent's data, recipe and random seed, and names it as `parent`. It is
    recorded in the study `adhoc`.

    Args:
        run: id, unambiguous beginning of one, or folder of a finished run.
        to: name of the larger network; options of the parent's carry over.
        width: channels of the larger network's first stage; the parent's without.
        epochs: to train on; the parent's without. 0 grows and proves only.
        settings: recipe values in the place of the parent's, such as ``learning_rate``.
        **execution: fields of `bench.launch.execution.Execution`.

    Returns:
        The run's row of the `runs` table.

    Raises:
        BenchError: the networks do not nest (the layer is named), or the request is wrong.
        StopRequestedError: a signal asked to stop; the same call goes on from there.
    """
    from bench.launch.execution import Execution, allot
    from bench.launch.study import conduct
    from bench.store import Store
    from bench.store.tables.frames import study_runs
    from bench.studies import Plan, PlannedVariant
    from bench.system.devices import resolve_device
    from bench.targets.find import load_trained

    how = Execution(**execution)
    parent = load_trained(run, results=how.results)
    store = Store(parent.root)
    request = _request(parent, to, width, epochs, settings or {})
    name = f"{to} from {parent.record.run}"
    variant = PlannedVariant(name, None, {request.seed: request})
    plan = Plan("adhoc", f"What does {name} reach?", None, (variant,), None)
    workers, resources = allot(plan, how, resolve_device(how.device))
    conduct(plan, store, resources, workers, how)
    rows = study_runs(store, "adhoc")
    return rows[rows["run"] == request.run_id].tail(1)


def _request(
    parent: TrainedRun, to: str, width: int | None, epochs: int | None, settings: dict[str, Any]
) -> RunRequest:
    from bench.models import canonical

    if epochs is not None and epochs < 0:
        raise BenchError(f"--epochs {epochs}: it must be at least 0 (0: grow and prove only)")
    before = parent.request
    old = configuration((before.model, before.options))
    options = {k: v for k, v in before.options.items() if k not in {"width", "zero_init_residual"}}
    network = canonical(to, {**options, "width": width or old.width})
    check_nesting((before.model, before.options), network)
    if network == (before.model, {k: v for k, v in before.options.items() if v is not None}):
        raise BenchError(f"--to {to}: that is the run's own network; name a larger one")
    recipe = _recipe(before, epochs, settings)
    model, options = network
    return dataclasses.replace(
        before,
        model=model,
        options=options,
        recipe=recipe,
        initial_weights=None,
        grown_from=parent.record.run,
    )


def _recipe(before: RunRequest, epochs: int | None, settings: dict[str, Any]) -> Any:
    from pydantic import ValidationError

    from bench.studies.lines import explain_first
    from bench.studies.recipe import Recipe

    changed = {**settings, **({} if epochs is None else {"epochs": epochs})}
    try:
        return Recipe.model_validate({**before.recipe.model_dump(), **changed})
    except ValidationError as error:
        raise BenchError(explain_first(error, [])) from None
