"""Start a run as another run's trained network, made larger."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bench.errors import BenchError
from bench.models import ResidualBlock, ResNet
from bench.networks.nesting import check_nesting
from bench.networks.same_function import prove
from bench.networks.widen import widen
from bench.studies.request import RunRequest
from bench.training.setup import read_trained

if TYPE_CHECKING:
    from bench.store import Store
    from bench.training.setup import Split

DOCUMENT = "growth.json"


def grow_into(model: nn.Module, split: Split, store: Store) -> dict[str, Any]:
    """Make *model* compute its parent's function, if the request names a parent.

    Args:
        model: freshly initialised, on the CPU; changed in place.
        split: the run's images and request.
        store: the results folder of the parent.

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
    check_nesting((before.model, before.options), (request.model, request.options))
    assert isinstance(parent, ResNet)  # noqa: S101 - check_nesting refuses others
    assert isinstance(model, ResNet)  # noqa: S101
    tensors = transplant(parent, model, seed=request.seed)
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
    return {DOCUMENT: {"parent": record.run, "tensors_taken": tensors, **proof.as_dict()}}


@torch.no_grad()
def transplant(parent: ResNet, child: ResNet, *, seed: int) -> int:
    """Make *child* compute *parent*'s function; returns how many tensors it took over.

    Layers of one name take the parent's weights, widened where the child is wider. A block
    that the parent lacks keeps its freshly drawn weights but for the last of its branch,
    which become zero: the scale and shift of the normalisation that ends it, or the last
    convolution where none does (`preact`).
    """
    wide = child.config.width > parent.config.width
    config = replace(parent.config, width=child.config.width)
    tensors = widen(parent, config, seed=seed) if wide else parent.state_dict()
    own: dict[str, Tensor] = child.state_dict()
    odd = [k for k, v in tensors.items() if k not in own or own[k].shape != v.shape]
    if odd:
        raise BenchError(f"{odd[0]} of the parent has no place of its shape in the grown network")
    own.update(tensors)
    child.load_state_dict(own)
    for path, block in child.named_modules():
        if isinstance(block, ResidualBlock) and f"{path}.conv1.weight" not in tensors:
            block.zero_residual()
    return len(tensors)
