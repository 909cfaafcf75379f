"""Start a run as another run's trained network, made larger."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bench.models import ResNet
from bench.networks.nesting import check_nesting
from bench.networks.same_function import prove
from bench.networks.widen import transplant
from bench.studies.run_request import RunRequest
from bench.training.inputs import describe_data, recorded_inputs, refuse_other_inputs
from bench.training.setup import Split, read_trained

if TYPE_CHECKING:
    from torch import nn

    from bench.store import Store

DOCUMENT = "growth.json"


def grow_into(model: nn.Module, split: Split, store: Store) -> dict[str, Any]:
    """Make a fresh *model* on the CPU compute its parent's function, if the request names one.

    Returns:
        The proof as a document to publish with the run; empty without a parent.

    Raises:
        BenchError: the parent is missing, not trained or does not nest, or the proof fails.
    """
    request = split.request
    if request.grown_from is None:
        return {}
    record, parent = read_trained(store, request.grown_from)
    before = RunRequest.from_dict(record.request)
    if before.data == request.data:
        data = describe_data(split.dataset)
        refuse_other_inputs(record.run, before, recorded_inputs(record), data)
    check_nesting((before.model, before.options), (request.model, request.options))
    assert isinstance(parent, ResNet)  # noqa: S101 - check_nesting refuses others
    assert isinstance(model, ResNet)  # noqa: S101
    tensors = transplant(parent, model, seed=request.initial_seed)
    held_out = len(split.validation) > 0
    images = split.validation if held_out else split.train
    device = split.device
    proof = prove(
        parent.to(device),
        model.to(device),
        split.evaluation(images),
        split="validation" if held_out else "training",
    )
    model.to("cpu")
    return {DOCUMENT: {"parent": record.run, "tensors_taken": tensors, **asdict(proof)}}
