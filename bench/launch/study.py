"""`run_study` and `train`: from a study to its rows. The command line is a thin layer over this."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.launch import launch
from bench.launch.execution import Execution, allot
from bench.report.tracking import tracked
from bench.store import Store, StudyRecord
from bench.store.tables.frames import study_runs
from bench.studies import (
    Overrides,
    Plan,
    PlannedVariant,
    Study,
    adhoc_study,
    expand,
    load_study,
)
from bench.system.environment import describe_environment, differences
from bench.system.machine_lock import training_lock
from bench.system.signals import stop_on_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pandas as pd
    import torch

    from bench.studies.request import Precision, RunRequest
    from bench.training.resources import Resources


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
    **execution: Any,
) -> pd.DataFrame:
    """Train every run of a study that is not there yet, and return the study's rows.

    Args:
        study: name of a shipped study, path of a study file, or a `Study`.
        name: the study's name in the results; the file's own without.
        seeds: random seeds, in the place of the file's.
        epochs: epochs, in the place of the recipe's or the file's.
        dataset: dataset, in the place of the file's.
        only: names of the variants to run; all without.
        deterministic: allow bit-reproducible kernels only.
        weights: file of weights that every run starts from.
        **execution: fields of `Execution`.

    Returns:
        The `runs` table of `bench.load_results`, this study's rows.

    Raises:
        BenchError: the request cannot be understood or met.
        StopRequestedError: a signal asked to stop; the same call goes on from there.
    """
    how = Execution(**execution)
    device = how.torch_device
    plan = make_plan(
        study, name, device, Overrides(
            seeds=list(seeds) if seeds is not None else None,
            epochs=epochs,
            dataset=dataset,
            only=tuple(only),
            deterministic=deterministic,
        ), weights,
    )  # fmt: skip
    store = Store(how.results)
    workers, resources = allot(plan, how, device)
    conduct(plan, store, resources, workers, how, weights)
    return study_runs(store, plan.name)


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
    **execution: Any,
) -> pd.DataFrame:
    """Train one network: study `adhoc`, the variant called as the model.

    Args:
        model: a name of `bench.models.list_models`, `timm:NAME`, `torchvision:NAME`, or
            `package.module:function`.
        options: options of the network, such as ``{"shortcut": "none"}``.
        dataset: a name of `bench list datasets`.
        recipe: `fast` or `book`.
        epochs: in the place of the recipe's.
        seed: random seed.
        settings: further keys of a study's variant (`input_size`, `learning_rate`, …).
        weights: weights to start from.
        deterministic: allow bit-reproducible kernels only.
        **execution: fields of `Execution`.

    Returns:
        The run's row of the `runs` table.

    Raises:
        BenchError: the request cannot be understood or met.
        StopRequestedError: a signal asked to stop; the same call goes on from there.
    """
    variant = {"name": model, "model": model, "options": options or {}, "dataset": dataset}
    for key in variant.keys() & (settings or {}).keys():
        raise BenchError(f"--set {key}: it has an argument or option of its own; use that")
    values = {"recipe": recipe, **variant, **(settings or {})}
    study = adhoc_study(f"What does {model} reach?", values, seed)
    rows = run_study(
        study,
        name="adhoc",
        epochs=epochs,
        weights=weights,
        deterministic=deterministic,
        **execution,
    )
    return rows[(rows["variant"] == model) & (rows["seed"] == seed)].tail(1)


def make_plan(
    study: str | Path | Study,
    name: str | None,
    device: torch.device,
    overrides: Overrides,
    weights: Path | None = None,
) -> Plan:
    """Expand a study for *device*.

    Raises:
        BenchError: as `bench.studies.load_study` and `expand`.
    """
    overrides = dataclasses.replace(overrides, default_precision=_default_precision(device))
    if isinstance(study, Study):
        plan = expand(name or "study", study, overrides)
    else:
        plan = load_study(study).expand(overrides)
        plan = dataclasses.replace(plan, name=name or plan.name)
    if weights is None:
        return plan
    from bench.training.weights import weights_digest

    digest = weights_digest(weights)
    return _map_requests(plan, lambda r: dataclasses.replace(r, initial_weights=digest))


def conduct(
    plan: Plan,
    store: Store,
    resources: Resources,
    workers: int,
    how: Execution,
    weights: Path | None = None,
) -> StudyRecord:
    """Carry a plan out and record the study; returns its record."""
    with tracked(how, store, plan.name) as told:
        return _carry_out(plan, store, resources, workers, told, weights)


def _carry_out(
    plan: Plan,
    store: Store,
    resources: Resources,
    workers: int,
    how: Execution,
    weights: Path | None,
) -> StudyRecord:
    pending = pending_requests(plan, store, force=how.force)
    for request in pending:
        store.refuse_newer(request.run_id)
    if pending or plan.tune:
        if pending and not (how.allow_mixed or how.force or how.elsewhere):
            refuse_mixed(plan, store, resources)
        check_requests(pending)
    store.prepare()
    with stop_on_signals() as stop, training_lock(stop.check):

        def run(requests: list[RunRequest], what: str) -> None:
            requests = [r for r in requests if how.force or store.read_run(r.run_id) is None]
            how.on_event({"event": "plan", "what": what, "runs": _labels(plan, requests)})
            launch(
                requests, store, resources,
                workers=workers, stop=stop, on_event=how.on_event, weights=weights,
                launcher=how.launcher,
            )  # fmt: skip

        tuning: dict[str, Any] = {}
        if plan.tune:
            from bench.launch.tuning import begun, choose, tuning_requests

            if any(store.read_run(r.run_id) is None for r in tuning_requests(plan)):
                record_study(plan, store, begun(plan))  # so that no clean-up takes its runs
            run(tuning_requests(plan), "tuning")
            plan, tuning = choose(plan, store)
        record = record_study(plan, store, tuning)
        for generation in plan.generations:
            run(generation, "training")
    return record_study(plan, store, record.tuning)


def _labels(plan: Plan, requests: Sequence[RunRequest]) -> dict[str, str]:
    """Run id → how a person calls it."""
    names = {r.run_id: f"{v.name} seed {s}" for v in plan.variants for s, r in v.requests.items()}
    return {r.run_id: names.get(r.run_id, r.run_id) for r in requests}


def pending_requests(plan: Plan, store: Store, *, force: bool = False) -> list[RunRequest]:
    """Runs of the plan that are still to be done."""
    return [r for r in plan.requests if force or store.read_run(r.run_id) is None]


def refuse_mixed(plan: Plan, store: Store, resources: Resources) -> None:
    """Refuse to add runs to a study whose finished runs were made otherwise.

    Raises:
        BenchError: naming what differs.
    """
    here = describe_environment(resources.device, threads=resources.threads)
    for request in plan.requests:
        record = store.read_run(request.run_id) or store.read_unfinished(request.run_id)
        found = differences(record.environment, here) if record else []
        if record and found:
            raise BenchError(
                f"study '{plan.name}' has runs made otherwise ({record.run}: {'; '.join(found)}); "
                "--allow-mixed goes on all the same, --force trains all anew"
            )


def check_requests(requests: Sequence[RunRequest]) -> None:
    """Check every network once against its data, before anything is begun."""
    from bench.training.check import check_trainable, probe
    from bench.training.setup import load_data

    checked = {probe(request).hash: request for request in requests}
    for request in checked.values():
        check_trainable(request, load_data(request))


def record_study(plan: Plan, store: Store, tuning: dict[str, Any]) -> StudyRecord:
    """Write which run stands for which variant and seed, also those yet to come."""
    before = store.read_study(plan.name)
    variants: dict[str, dict[str, Any]] = {}
    for variant in plan.variants:
        runs = {str(seed): request.run_id for seed, request in variant.requests.items()}
        variants[variant.name] = {"reference": variant.reference, "runs": runs}
    if plan.name == "adhoc" and before is not None:
        for name, entry in variants.items():
            earlier = before.variants.get(name, {"runs": {}})["runs"].items()
            kept = {s: run for s, run in earlier if _differ_in_seed(store, run, plan, name)}
            entry["runs"] = {**kept, **entry["runs"]}
        variants = {**before.variants, **variants}
    record = StudyRecord(
        name=plan.name,
        question=plan.question,
        source=plan.source,
        variants=variants,
        tuning=tuning,
        shared_tensors=shared_tensors(store, variants),
        updated_at=datetime.now(UTC).isoformat(timespec="seconds"),
        target_accuracy=plan.target_accuracy,
        published=plan.published.model_dump() if plan.published else None,
        compare_training=plan.compare_training,
        discussion=plan.discussion,
    )
    store.save_study(record)
    return record


def _differ_in_seed(store: Store, run: str, plan: Plan, variant: str) -> bool:
    """Whether a recorded run is the plan's variant but for the random seed."""
    record = store.read_run(run)
    requests = next(v.requests for v in plan.variants if v.name == variant)
    asked = next(iter(requests.values())).as_dict()
    return record is not None and {**record.request, "seed": 0} == {**asked, "seed": 0}


def shared_tensors(store: Store, variants: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Count, for each variant, the initial tensors that are equal to its reference's."""
    shared = {}
    for name, entry in variants.items():
        reference = variants.get(entry["reference"] or "", {}).get("runs", {})
        pairs = [(run, reference[seed]) for seed, run in entry["runs"].items() if seed in reference]
        counted = _shared(store, *pairs[0]) if pairs else None
        if counted:
            shared[name] = counted
    return shared


def _shared(store: Store, run: str, reference: str) -> dict[str, int] | None:
    """Compare two runs' initial tensors; None while either is not finished."""
    name = "initial_weights.json"
    records = [store.read_run(r) for r in (run, reference)]
    if not all(record and name in record.files for record in records):
        return None
    ours, theirs = (store.read_document(r, name) for r in (run, reference))
    equal = sum(theirs.get(tensor) == digest for tensor, digest in ours.items())
    return {"equal": equal, "tensors": len(ours), "reference_tensors": len(theirs)}


def _map_requests(plan: Plan, change: Callable[[RunRequest], RunRequest]) -> Plan:
    variants = tuple(
        PlannedVariant(v.name, v.reference, {s: change(r) for s, r in v.requests.items()})
        for v in plan.variants
    )
    return dataclasses.replace(plan, variants=variants)


def _default_precision(device: torch.device) -> Precision:
    if device.type != "cuda":
        return "fp32"
    import torch

    if not torch.cuda.is_available():  # a cluster's, unseen: every GPU since 2020 has bf16
        return "bf16"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
