"""Recorded runs are reused only for the code and the images that they were trained with."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from bench.data.catalog import FOLDER_PREFIX, find_folder
from bench.errors import BenchError
from bench.studies.recipe import LATER
from bench.studies.run_request import request_hash
from bench.system.user_code import changes, current_code
from bench.training.initialise import digests
from bench.training.inputs import (
    describe_data,
    recorded_inputs,
    refuse_other_inputs,
    remake,
)
from bench.training.setup import build_blank, forget_data, load_data

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from bench.store import RunRecord, Store
    from bench.studies import Plan
    from bench.studies.run_request import Data, RunRequest


def settle_folders(plan: Plan, store: Store) -> Plan:
    """Name each image folder of a plan as the results folder does.

    A folder that is recorded under another spelling keeps that one. A relative name that stands
    for another folder in the recorded runs, which were made elsewhere, becomes absolute.
    """
    requests = [request for v in plan.variants for request in v.requests.values()]
    if any(":" in request.dataset for request in requests):
        forget_data()  # a file, or the working directory, may have changed since
    folders = {r.dataset: find_folder(r.dataset) for r in requests}
    if not any(folders.values()):
        return plan
    recorded = [
        record
        for record in itertools.chain(store.runs(), store.unfinished())
        if record.request["dataset"].startswith(FOLDER_PREFIX)
    ]
    names = {
        name: _name_of(name, folder, [r for r in requests if r.dataset == name], recorded)
        for name, folder in folders.items()
        if folder is not None
    }
    return plan.map(lambda r: replace(r, dataset=names.get(r.dataset, r.dataset)))


def _name_of(name: str, folder: Path, requests: list[RunRequest], recorded: list[RunRecord]) -> str:
    """Return the name under which to record the runs on a folder."""
    wanted = {request.data[1:4]: request for request in requests}
    for record in recorded:
        other = record.request["dataset"]
        how = tuple(record.request[key] for key in ("train_images", "input_size"))
        resize = record.request["recipe"].get("resize", LATER["resize"])
        request = wanted.get((*how, resize))
        if request is None:
            continue
        path = record.environment.get("dataset_path", str(find_folder(other)))
        if other != name and find_folder(other) == folder and path == str(folder):
            return str(other)
        if other == name and path != str(folder) and not _same(record, request):
            return f"{FOLDER_PREFIX}{folder}"
    return name


def _same(record: RunRecord, request: RunRequest) -> bool:
    fingerprint = record.result.get("dataset_fingerprint")
    return fingerprint is not None and bool(fingerprint == load_data(request).fingerprint)


def other_inputs(requests: Iterable[RunRequest], store: Store) -> str | None:
    """Return a digest of the user's code and images, if a recorded run was made with others."""
    code: dict[str, dict[str, str]] = {}
    images: dict[Data, dict[str, Any]] = {}
    differ = False
    for request in requests:
        if ":" not in request.model + request.dataset:
            continue
        if request.model not in code:
            code[request.model] = current_code(request.model)
        if request.data not in images:
            own = ":" in request.dataset
            images[request.data] = describe_data(load_data(request)) if own else {}
        if record := store.read_run(request.run_id):
            then, now = recorded_inputs(record), code[request.model]
            known = then.get("user_code")  # older records have none
            differ |= bool(known and changes(known, now))
            differ |= request.model.startswith("__main__:") and not now  # it is in no file
            found = images[request.data].items()
            differ |= any(then.get(key, value) != value for key, value in found)
    inputs = {"code": code, "images": [[*data, found] for data, found in images.items()]}
    return request_hash(inputs) if differ else None


def refuse_changed(
    requests: Iterable[RunRequest], store: Store, retrained: set[str]
) -> tuple[dict[Data, str], dict[str, dict[str, str]]]:
    """Refuse recorded runs of other code or images than *requests* name now.

    Networks and datasets that come with bench do not change. The user's own images are loaded, also
    for runs that are still to be trained.

    Args:
        requests: all runs that would be compared.
        store: the results folder.
        retrained: runs that are trained again, whatever is recorded.

    Returns:
        The fingerprint of each of the user's datasets, and the digests of the code of each of the
        user's networks, for the runs that are trained now.

    Raises:
        BenchError: naming the run and what differs.
    """
    images: dict[Data, dict[str, Any]] = {}
    code: dict[str, dict[str, str]] = {}
    starts: dict[str, dict[str, str]] = {}
    for request in requests:
        if ":" not in request.model + request.dataset:
            continue  # both come with bench
        run = request.run_id
        record = None if run in retrained else store.read_run(run)
        found = None if record or run in retrained else store.load_checkpoint(run)
        if ":" in request.dataset and request.data not in images:
            images[request.data] = describe_data(load_data(request))
        if request.model not in code:
            code[request.model] = current_code(request.model)
        unknown = request.model.startswith("__main__:") and not code[request.model]
        if unknown and (record or found):
            raise BenchError(
                f"run {run} was begun before, and whether the code of {request.model} has changed "
                "is not known, because it is in no file: put it into one, or train with force=True"
            )
        now = {"user_code": code[request.model], **images.get(request.data, {})}
        if record is not None:
            refuse_other_inputs(run, request, recorded_inputs(record), now)
            if record.status == "complete":
                if request.seedless_hash not in starts:
                    starts[request.seedless_hash] = _own_start(request, record)
                _refuse_other_start(request, record, starts[request.seedless_hash], store)
        elif found is not None:
            inputs = found[1].get("inputs", {})
            refuse_other_inputs(run, request, inputs, now, begun=True)
    return {data: known["dataset_fingerprint"] for data, known in images.items()}, code


def _own_start(request: RunRequest, record: RunRecord) -> dict[str, str]:
    """Return the digests of what a network sets or loads itself, whatever the random seed."""
    own = ":" in request.model and request.recipe.initialization == "model"
    if not own or request.initial_weights is not None:
        return {}
    classes, shape = len(record.result["classes"]), record.result["input_shape"]
    return loaded_tensors(request, classes, shape)[0]


def _refuse_other_start(
    request: RunRequest, record: RunRecord, loaded: dict[str, str], store: Store
) -> None:
    """Refuse a run of a network that loads weights itself, if they are others now.

    Raises:
        BenchError: naming the tensor.
    """
    if not loaded:
        return
    before = store.read_document(record.run, "initial_weights.json")
    for name, digest in loaded.items():
        if before.get(name, digest) != digest:
            raise BenchError(
                f"run {record.run} was made from other weights than '{request.model}' loads now "
                f"('{name}' differs); restore them, or {remake(request)}"
            )


def loaded_tensors(
    request: RunRequest, classes: int, input_shape: Sequence[int]
) -> tuple[dict[str, str], list[str]]:
    """Build a network with two random seeds to tell the parameters that it sets or loads itself.

    Returns:
        The digests of the parameters that do not depend on the random seed, and the names of those
        that do.
    """
    starts = []
    for seed in (request.seed, request.seed + 1):
        torch.manual_seed(seed)
        starts.append(digests(build_blank(request, classes, input_shape)))
    first, second = starts
    loaded = {name: digest for name, digest in first.items() if second.get(name) == digest}
    return loaded, [name for name in first if name not in loaded]
