"""What the commands do, as Python functions that return pandas frames.

Each function imports its room when it is called, so that a command loads only what it needs.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd

    from bench.launch.execution import Execution
    from bench.store import StudyRecord
    from bench.studies import Plan, Study

ADHOC = "adhoc"  # the study in which single runs are recorded


def run_study(
    study: str | Path | Study,
    *,
    name: str | None = None,
    seeds: Sequence[int] | None = None,
    epochs: int | None = None,
    dataset: str | None = None,
    only: Sequence[str] = (),
    deterministic: bool = False,
    weights: Path | None = None,
    track: Sequence[str] = (),
    **execution: Any,
) -> pd.DataFrame:
    """Train every run of a study that is missing, and return the study's rows.

    Args:
        study: name of a shipped study, path of a study file, or a `Study`.
        name: the study's name in the results (default: the file's).
        seeds: random seeds (default: the file's).
        epochs: number of epochs (default: the file's, or the recipe's).
        dataset: name of the dataset (default: the file's).
        only: names of the variants to run (default: all).
        deterministic: allow bit-reproducible kernels only.
        weights: file of weights that every run starts from.
        track: trackers to log the runs to as well, of `tensorboard` and `mlflow`.
        **execution: fields of `bench.launch.execution.Execution`.

    Returns:
        This study's rows of the `runs` table of `bench.load_results`.

    Raises:
        BenchError: the request cannot be understood or met.
        StopRequestedError: a signal asked to stop; the same call resumes.
    """
    from bench.launch.execution import Execution
    from bench.launch.study import make_plan
    from bench.store import Store
    from bench.store.tables.frames import study_runs
    from bench.studies import Overrides

    how = Execution(**execution)
    overrides = Overrides(
        seeds=list(seeds) if seeds is not None else None,
        epochs=epochs,
        dataset=dataset,
        only=tuple(only),
        deterministic=deterministic,
    )
    plan = make_plan(study, how.torch_device, overrides, name=name, weights=weights)
    run_plan(plan, how, weights=weights, track=track)
    return study_runs(Store(how.results), plan.name)


def run_plan(
    plan: Plan, how: Execution, *, weights: Path | None = None, track: Sequence[str] = ()
) -> StudyRecord:
    """Carry out a plan as `bench.launch.study.carry_out` does, and log its runs to trackers."""
    from bench.launch.study import carry_out
    from bench.store import Store

    logged: Any = nullcontext(how.on_event)
    if track:
        from bench.report.tracking import tracked

        logged = tracked(track, Store(how.results), plan.name, how.on_event)
    with logged as on_event:
        return carry_out(plan, replace(how, on_event=on_event), weights=weights)


def train(
    model: str,
    *,
    options: dict[str, Any] | None = None,
    dataset: str = "fashion-mnist-mini",
    recipe: str = "fast",
    epochs: int | None = None,
    seed: int = 0,
    settings: dict[str, Any] | None = None,
    weights: Path | None = None,
    deterministic: bool = False,
    track: Sequence[str] = (),
    **execution: Any,
) -> pd.DataFrame:
    """Train one network; it is recorded in the study `adhoc`, as a variant named like the model.

    Args:
        model: a name of `bench.models.list_models`, `timm:NAME`, `torchvision:NAME`, or
            `package.module:function`.
        options: options of the network, such as ``{"shortcut": "none"}``.
        dataset: a name of `bench list datasets`.
        recipe: `fast` or `book`.
        epochs: number of epochs (default: the recipe's).
        seed: random seed.
        settings: further keys of a study's variant (`input_size`, `learning_rate`, …).
        weights: file of weights to start from.
        deterministic: allow bit-reproducible kernels only.
        track: trackers to log the run to as well, of `tensorboard` and `mlflow`.
        **execution: fields of `bench.launch.execution.Execution`.

    Returns:
        The run's row of the `runs` table.

    Raises:
        BenchError: the request cannot be understood or met.
        StopRequestedError: a signal asked to stop; the same call resumes.
    """
    from bench.studies import adhoc_study

    variant = {"name": model, "model": model, "options": options or {}, "dataset": dataset}
    for key in variant.keys() & (settings or {}).keys():
        raise BenchError(f"--set {key}: it has an argument or option of its own; use that")
    values = {"recipe": recipe, **variant, **(settings or {})}
    rows = run_study(
        adhoc_study(f"What does {model} reach?", values, seed),
        name=ADHOC,
        epochs=epochs,
        weights=weights,
        deterministic=deterministic,
        track=track,
        **execution,
    )
    return rows[(rows["variant"] == model) & (rows["seed"] == seed)].tail(1)


def grow(
    run: str | Path,
    to: str,
    *,
    width: int | None = None,
    epochs: int | None = None,
    settings: dict[str, Any] | None = None,
    track: Sequence[str] = (),
    **execution: Any,
) -> pd.DataFrame:
    """Grow a trained run to a larger network that computes the same, verify it, train it further.

    The new run has its parent's data, recipe and random seed, and names it as `parent`. It is
    recorded in the study `adhoc`.

    Args:
        run: id, unambiguous beginning of one, or folder of a finished run.
        to: name of the larger network; options of the parent's carry over.
        width: channels of the larger network's first stage (default: the parent's).
        epochs: epochs of further training (0: only grow and verify; default: the parent's).
        settings: recipe values that replace the parent's, such as ``learning_rate``.
        track: trackers to log the run to as well, of `tensorboard` and `mlflow`.
        **execution: fields of `bench.launch.execution.Execution`.

    Returns:
        The run's row of the `runs` table.

    Raises:
        BenchError: the networks do not nest (the layer is named), or the request is wrong.
        StopRequestedError: a signal asked to stop; the same call resumes.
    """
    row, _ = grow_with_proof(
        run, to, width=width, epochs=epochs, settings=settings, track=track, **execution
    )
    return row


def grow_with_proof(
    run: str | Path,
    to: str,
    *,
    width: int | None,
    epochs: int | None,
    settings: dict[str, Any] | None,
    track: Sequence[str] = (),
    **execution: Any,
) -> tuple[pd.DataFrame, dict[str, Any] | None]:
    """Do what `grow` does; also return the proof that the functions are the same.

    The proof is the run's document `growth.json`, None if the run did not complete.
    """
    from bench.launch.execution import Execution
    from bench.store import Store
    from bench.store.tables.frames import study_runs
    from bench.studies import Plan, PlannedVariant
    from bench.studies.growth import grown_request
    from bench.targets.trained_run import load_trained
    from bench.training.grown_start import DOCUMENT

    how = Execution(**execution)
    parent = load_trained(run, results=how.results)
    how = replace(how, results=parent.root)
    request = grown_request(
        parent.request, parent.record.run, to, width=width, epochs=epochs, settings=settings or {}
    )
    name = f"{to} from {parent.record.run}"
    variant = PlannedVariant(name, None, {request.seed: request})
    run_plan(Plan(ADHOC, f"What does {name} reach?", None, (variant,), None), how, track=track)
    store = Store(how.results)
    rows = study_runs(store, ADHOC)
    row = rows[rows["run"] == request.run_id].tail(1)
    complete = row["status"].eq("complete").all()
    return row, store.read_document(request.run_id, DOCUMENT) if complete else None
