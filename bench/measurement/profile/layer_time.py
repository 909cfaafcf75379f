"""Times of layers and operators, in the form in which a measurement keeps them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.networks.paths import block_of

RUNS = 5  # profiled batches

# What a layer does, in the order in which charts show it.
PARTS = (
    "convolution",
    "projection",
    "addition",
    "normalisation",
    "activation",
    "pooling",
    "linear",
    "other",
)
# Parts of kinds of operator, recognised by words in torch's and in ONNX's names.
_WORDS = {
    "convolution": ("conv",),
    "addition": ("add",),
    "normalisation": ("norm",),
    "activation": ("relu", "clamp", "clip"),
    "pooling": ("pool", "reducemean"),
    "linear": ("gemm", "matmul", "linear"),
}


@dataclass(frozen=True)
class LayerTime:
    """Time that a profiler reports for one layer.

    Attributes:
        name: path of the layer in the network, or node of the graph.
        kind: what the layer is, such as `Conv2d 3×3`.
        part: what it does, one of `PARTS`; `projection` is a 1×1 convolution on a shortcut.
        microseconds: summed over all profiled batches.
        with_addition: an addition is fused into it, whose own time is unknown.
        block: the block of the network that it belongs to; derived from the name if empty.
    """

    name: str
    kind: str
    part: str
    microseconds: float
    with_addition: bool = False
    block: str = ""


# What a backend's profiler returns: the layers in the network's order, and kinds of operator with
# their microseconds, both summed over all profiled batches.
LayerProfile = tuple[Sequence[LayerTime], Sequence[tuple[str, float]]]


def layer_rows(
    layers: Iterable[LayerTime], operators: Iterable[tuple[str, float]], runs: int = RUNS
) -> list[dict[str, Any]]:
    """Convert a profile of *runs* batches into milliseconds of one and shares of the whole.

    Returns:
        Layers in the order given, then operators, slowest first. Each has `by` (layer or
        operator), `name`, `kind`, `part`, `block` and `with_addition` as in `LayerTime` (an
        operator's kind is its name), `milliseconds` of one batch, mean over the profiled ones
        (slower than unprofiled), and `share` of everything that was profiled, 0…1. The whole is
        the sum of the operators' times.
    """
    slowest_first = sorted(operators, key=lambda item: -item[1])
    whole = sum(microseconds for _, microseconds in slowest_first) or 1.0
    timed = [
        *(("layer", replace(e, block=e.block or block_of(e.name))) for e in layers),
        *(
            ("operator", LayerTime(name, name, part_of_operator(name), microseconds))
            for name, microseconds in slowest_first
            if microseconds > 0
        ),
    ]
    return [
        {
            "by": by,
            "name": entry.name,
            "kind": entry.kind,
            "milliseconds": entry.microseconds / runs / 1e3,
            "share": entry.microseconds / whole,
            "part": entry.part,
            "block": entry.block,
            "with_addition": entry.with_addition,
        }
        for by, entry in timed
    ]


def part_of_operator(name: str) -> str:
    """Return the part of `PARTS` that a kind of operator computes."""
    lower = name.lower()
    for part, words in _WORDS.items():
        if any(word in lower for word in words):
            return "linear" if "addmm" in lower else part
    return "other"
