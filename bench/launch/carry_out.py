"""Carry out a plan: check it, train the runs that are missing, and record the study."""

from __future__ import annotations

import dataclasses
import shlex
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import torch

from bench.errors import BenchError, warn
from bench.launch.assignment import Assignment
from bench.launch.declaration import declaration
from bench.launch.learning_rates import as_recorded, choose, tuning_requests
from bench.launch.reuse import other_inputs, refuse_changed
from bench.launch.workers import Execution, allot
from bench.store import Store, StudyRecord
from bench.studies import ADHOC, Overrides, Plan, Study, expand, load_study
from bench.system.environment import describe_environment, differences
from bench.system.machine_lock import training_lock
from bench.system.signals import stop_on_signals
from bench.training.check import check_shared, check_trainable, remarks
from bench.training.setup import load_data
from bench.training.weights import weights_digest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.studies.run_request import Precision, RunRequest
    from bench.training.resources import Resources


def make_plan(
    study: str | Path | Study,
    device: torch.device,
    overrides: Overrides,
    *,
    name: str | None = None,
    weights: Path | None = None,
) -> Plan:
    """Expand a study into its runs.

    Args:
        study: name of a shipped study, path of a study file, or a `Study`.
        device: where the runs are to be trained; it decides the default precision.
        overrides: values that replace the file's.
        name: the study's name in the results (default: the file's).
        weights: file of weights that every run starts from, read for its digest.

    Raises:
        BenchError: as `bench.studies.load_study` and `expand`, or *weights* cannot be read.
    """
    overrides = dataclasses.replace(overrides, default_precision=_default_precision(device))
    if isinstance(study, Study):
        plan = expand(name or ADHOC, study, overrides)
    else:
        file = load_study(study)
        plan = file.expand(overrides)
        plan = dataclasses.replace(plan, name=name or plan.name, file=file.path.name)
    if weights is None:
        return plan
    if any(request.recipe.whitening == "initial" for request in plan.requests):
        raise BenchError(
            f"--weights {weights}: they replace the first convolution of whitening = 'initial'; "
            "leave one of the two out"
        )
    digest = weights_digest(weights)
    return plan.map(lambda request: dataclasses.replace(request, initial_weights=digest))


def carry_out(plan: Plan, how: Execution, *, weights: Path | None = None) -> StudyRecord:
    """Train every run of a plan that is missing, and record the study.

    Args:
        plan: the runs.
        how: where and how they are trained, and what is called with their progress.
        weights: file of weights that every run starts from, if the plan was made with it.

    Returns:
        The study's record, as written.

    Raises:
        BenchError: a run cannot be trained, or the study has runs of another environment.
        StopRequestedError: a signal asked to stop; the same call resumes.
        StorageError: the results folder cannot be written.
    """
    store = Store(how.results)
    plan, tuning = as_recorded(plan, store)
    workers, resources = allot(plan, how)
    pending = [r for r in plan.requests if how.force or store.read_run(r.run_id) is None]
    for request in pending:
        store.refuse_newer(request.run_id)
    if pending and not (how.allow_mixed or how.force or how.elsewhere):
        _refuse_mixed(plan, store, resources)
    _check_trainable(pending, resources.device)
    candidates = tuning_requests(plan)
    resources = _fix_data([*candidates, *plan.all_requests], plan, store, resources)
    store.prepare()
    _tell_of_seeds_left_out(plan, store)
    other = other_inputs(plan.requests, store) if how.force else None
    before = store.read_study(plan.name)
    planned = [r for r in candidates if how.force or store.read_run(r.run_id) is None] + pending
    with stop_on_signals() as stop, training_lock(stop.check):

        def run(requests: list[RunRequest], what: str) -> None:
            requests = [r for r in requests if how.force or store.read_run(r.run_id) is None]
            labels = _labels(plan, requests)
            how.on_event({"event": "plan", "what": what, "runs": labels})
            if requests:
                work = Assignment(requests, store, resources, workers, stop, how.on_event, weights)
                how.launcher.run(dataclasses.replace(work, planned=tuple(planned)))
                planned.clear()

        if plan.study.tune:
            if any(store.read_run(r.run_id) is None for r in candidates):
                # Recorded now, so that 'bench results gc' keeps the runs of the search.
                _record_study(plan, store, tuning, other)
            run(candidates, "tuning")
            plan, tuning = choose(plan, store, searched=True)
            _fix_data(plan.all_requests, plan, store, resources)
        _tell_of_runs_replaced(plan, store, before)
        _record_study(plan, store, tuning, other)
        for generation in plan.generations:
            run(generation, "training")
    return _record_study(plan, store, tuning, other)


def _check_trainable(requests: Sequence[RunRequest], device: str) -> None:
    """Refuse what cannot be trained, and warn of data that is too little to say much."""
    for request in {request.seedless_hash: request for request in requests}.values():
        dataset = load_data(request)
        check_trainable(request, dataset)
        check_shared(request, dataset, device)
        for remark in dataset.notes if request.imported else remarks(request, dataset):
            warn(remark)


def _fix_data(
    requests: Sequence[RunRequest], plan: Plan, store: Store, resources: Resources
) -> Resources:
    """Refuse recorded runs of other code or images, and let the runs train with these."""
    wanted = {request.run_id for request in plan.requests}
    compared = [r for r in requests if r.run_id in wanted or store.read_run(r.run_id)]
    retrained = {r.run_id for r in requests} if resources.force else set()
    retrained -= {r.run_id for r in compared if r.run_id not in wanted}
    fingerprints, code = refuse_changed(compared, store, retrained)
    return dataclasses.replace(resources, fingerprints=fingerprints, code=code)


def _labels(plan: Plan, requests: Sequence[RunRequest]) -> dict[str, str]:
    """Map run ids to the names that a person reads."""
    names = {r.run_id: f"{v.name} seed {s}" for v in plan.variants for s, r in v.requests.items()}
    return {r.run_id: names.get(r.run_id, r.run_id) for r in requests}


def _refuse_mixed(plan: Plan, store: Store, resources: Resources) -> None:
    """Refuse to add runs to a study whose runs were made with other versions or hardware."""
    here = describe_environment(resources.device, threads=resources.threads)
    for request in [*tuning_requests(plan), *plan.requests]:
        environment = _begun_in(store, request.run_id)
        found = differences(environment, here) if environment else []
        if found:
            raise BenchError(
                f"study '{plan.name}' has runs of another environment ({request.run_id}: "
                f"{'; '.join(found)}); --allow-mixed adds to them, --force retrains all"
            )


def _begun_in(store: Store, run: str) -> dict[str, Any] | None:
    """Return the environment that a run was made or begun in; None if it is not recorded."""
    if (record := store.read(run)) is not None:
        return record.environment
    environment: dict[str, Any] | None = store.checkpoint_state(run).get("environment")
    return environment  # the checkpoint is all that kill -9 leaves


def _tell_of_seeds_left_out(plan: Plan, store: Store) -> None:
    """Say so if the study has finished runs of seeds that were not asked for this time."""
    before = store.read_study(plan.name)
    if before is None or plan.name == ADHOC:
        return
    asked = {int(s) for variant in plan.variants for s in variant.requests}
    left = set()
    for variant in plan.variants:
        request = next(iter(variant.requests.values()))
        for seed, run in before.variants.get(variant.name, {"runs": {}})["runs"].items():
            same = _with_seed(request, seed).run_id == run
            if same and int(seed) not in asked and store.read_run(run) is not None:
                left.add(int(seed))
    if left:
        named, every = (",".join(map(str, sorted(seeds))) for seeds in (left, asked | left))
        warn(
            f"study '{plan.name}' also has finished runs of --seeds {named}, which this command "
            "leaves out, so that 'bench results gc' would remove them; keep them with "
            f"--seeds {every}"
        )


def _tell_of_runs_replaced(plan: Plan, store: Store, before: StudyRecord | None) -> None:
    """Say so if finished runs of the study's record are of other settings than its runs now."""
    if before is None or plan.name == ADHOC:
        return
    now = {variant.name: variant.requests for variant in plan.variants}
    kept = {request.run_id for requests in now.values() for request in requests.values()}
    replaced = [
        run
        for name, entry in before.variants.items()
        for seed, run in entry["runs"].items()
        if run not in kept and not _is_of_another_seed(now.get(name, {}), seed, run)
        if store.read_run(run) is not None
    ]
    if not replaced:
        return
    then, given = (_options(overrides) for overrides in (before.overrides, plan.overrides))
    back = f"repeat it with {then}" if then else f"repeat it without {given}"
    if then == given:
        back = "restore the study's settings and default precision (a GPU's is another)"
    warn(
        f"study '{plan.name}' had {len(replaced)} finished run(s) with other settings, which this "
        f"command leaves out, so that 'bench results gc' would remove them; to keep them, {back}"
    )


def _is_of_another_seed(requests: dict[int, RunRequest], seed: str, run: str) -> bool:
    """Return whether a run only has a seed that was not asked for, as far as can be known."""
    if not requests or int(seed) in requests:
        return False
    request = next(iter(requests.values()))  # one that grows has a parent for each seed
    return request.grown_from is not None or _with_seed(request, seed).run_id == run


def _options(overrides: dict[str, Any]) -> str:
    """Return overrides as the words of a command."""
    words = (
        f"--{k}" if v is True else f"--{k} {shlex.quote(str(v))}" for k, v in overrides.items()
    )
    return " ".join(words)


def _record_study(
    plan: Plan, store: Store, tuning: dict[str, Any], other: str | None
) -> StudyRecord:
    """Record which run belongs to which variant and seed, runs still to do included."""
    with store.lock_studies():  # others may record runs in the same study
        record = _study_record(plan, store, tuning, other)
        store.save_study(record)
    return record


def _study_record(
    plan: Plan, store: Store, tuning: dict[str, Any], other: str | None
) -> StudyRecord:
    study, before = plan.study, store.read_study(plan.name)
    variants: dict[str, dict[str, Any]] = {}
    for variant in plan.variants:
        runs = {str(seed): request.run_id for seed, request in variant.requests.items()}
        variants[variant.name] = {"reference": variant.reference, "runs": runs}
    if plan.name == ADHOC and before is not None:
        for variant in plan.variants:
            entry = variants[variant.name]
            request = next(iter(variant.requests.values()))
            earlier = before.variants.get(variant.name, {"runs": {}})["runs"].items()
            kept = {s: run for s, run in earlier if _with_seed(request, s).run_id == run}
            entry["runs"] = {**kept, **entry["runs"]}
        variants = {**before.variants, **variants}
    return StudyRecord(
        name=plan.name,
        question=study.question,
        source=study.source,
        variants=variants,
        tuning=tuning,
        shared_tensors=_shared_tensors(store, variants),
        updated_at=datetime.now(UTC).isoformat(timespec="microseconds"),
        target_accuracy=study.target_accuracy,
        published=study.published.model_dump() if study.published else None,
        compare_training=study.compare_training,
        discussion=study.discussion,
        earlier_looks=study.earlier_looks,
        primary=study.primary.model_dump() if study.primary else None,
        margin=study.margin,
        contrasts={contrast.name: contrast.weights for contrast in study.contrast},
        test=study.test,
        **_origin(plan),
        **declaration(plan, store, before, variants, other),
    )


def _origin(plan: Plan) -> dict[str, Any]:
    """Return the fields of a study's record that its report names the command by."""
    if plan.name == ADHOC:  # each of its runs had a command of its own
        return {}
    file = None if plan.file == f"{plan.name}.toml" else plan.file
    return {"file": file, "overrides": plan.overrides}


def _with_seed(request: RunRequest, seed: str) -> RunRequest:
    return dataclasses.replace(request, seed=int(seed))


def _shared_tensors(store: Store, variants: dict[str, dict[str, Any]]) -> dict[str, Any]:
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


def _default_precision(device: torch.device) -> Precision:
    if device.type != "cuda":
        return "fp32"
    if not torch.cuda.is_available():  # a cluster's GPUs: all made since 2020 have bf16
        return "bf16"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
