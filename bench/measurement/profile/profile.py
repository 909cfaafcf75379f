"""Where the time goes: by layer and by kind of operator, from the runtime's own profiler."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import nn

    from bench.measurement.configurations import Configuration

RUNS = 5
_LAYER = "bench.layer:"
_UNITS = {"cpu": "self_cpu_time_total", "cuda": "self_device_time_total"}
_BLOCK = re.compile(r"[^.]+(\.\d+)?")  # layer1.0.conv1 belongs to layer1.0

# What a layer does, in the order in which pictures show it.
PARTS = (
    "convolution", "projection", "addition", "normalisation", "activation", "pooling", "linear",
    "other",
)  # fmt: skip


@dataclass(frozen=True)
class Share:
    """A part of one batch's time.

    Attributes:
        by: layer or operator.
        name: path of the layer in the network (node of the graph), or kind of operator.
        kind: what the layer is.
        milliseconds: of one batch, mean over a few profiled ones (slower than unprofiled).
        share: of all that was profiled, 0…1.
        part: of `PARTS`: what it does; `projection` is a 1×1 convolution on a shortcut.
        block: the block of the network that it belongs to; empty for an operator.
        with_addition: an addition is computed inside it, and no profiler tells how long.
    """

    by: str
    name: str
    kind: str
    milliseconds: float
    share: float
    part: str = "other"
    block: str = ""
    with_addition: bool = False


@dataclass(frozen=True)
class Spent:
    """What a profiler says of one layer: microseconds of all `RUNS` runs."""

    name: str
    kind: str
    part: str
    microseconds: float
    with_addition: bool = False
    block: str = ""  # that of its name without


def profile(made: Configuration) -> list[Share]:
    """Profile one configuration.

    Returns:
        Layers in the network's order, then operators, slowest first.

    Raises:
        BenchError: its backend has no profiler that is read here.
    """
    if made.backend == "eager":
        return shares(*_torch(made))
    if made.backend == "onnxruntime":
        from bench.measurement.profile.onnxruntime_profile import profile_nodes

        return shares(*profile_nodes(made, RUNS))
    raise BenchError(f"--layers: the backend '{made.backend}' has no profile by layer")


def shares(layers: Iterable[Spent], operators: Iterable[tuple[str, float]]) -> list[Share]:
    """Turn microseconds of all runs into milliseconds of one, and shares of the operators' sum."""
    operators = sorted(operators, key=lambda item: -item[1])
    whole = sum(spent for _, spent in operators) or 1.0

    def times(microseconds: float) -> tuple[float, float]:
        return microseconds / RUNS / 1e3, microseconds / whole

    return [
        Share(
            "layer", spent.name, spent.kind, *times(spent.microseconds), spent.part,
spent.block or block_of(spent.name), spent.with_addition,
        )
        for spent in layers
    ] + [
        Share("operator", name, name, *times(spent), _part_of_operator(name))
        for name, spent in operators
        if spent > 0
    ]  # fmt: skip


def block_of(name: str) -> str:
    """Return the block that a layer's path lies in: layer1.0 for layer1.0.conv1."""
    found = _BLOCK.match(name)
    return found[0] if found else name


def kind_of(module: nn.Module, *, on_shortcut: bool = False) -> str:
    """Name a layer's kind; what lies on a shortcut is told apart."""
    from torch import nn

    kind = type(module).__name__
    if isinstance(module, nn.Conv2d):
        kind += " " + "×".join(map(str, module.kernel_size))
    return kind + " on the shortcut" * on_shortcut


def _on_shortcuts(model: nn.Module) -> set[str]:
    """Paths on shortcuts, as torchvision, timm, the book and these networks call them."""
    from bench.models import Residual

    named = dict(model.named_modules())
    books = {f"{name}.conv3" for name, module in named.items() if isinstance(module, Residual)}
    return books | {n for n in named if {"downsample", "shortcut"} & set(n.split("."))}


def part_of(module: nn.Module, *, on_shortcut: bool = False) -> str:
    """Say what a layer does, as one of `PARTS`."""
    from torch import nn
    from torch.nn.modules import activation, batchnorm, pooling

    from bench.models.shortcuts import JOINS

    kinds: dict[str, Any] = {
        "addition": JOINS,
        "convolution": nn.modules.conv._ConvNd,
        "normalisation": (batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm),
        "linear": nn.Linear,
    }
    for part, kind in kinds.items():
        if isinstance(module, kind):
            return "projection" if part == "convolution" and on_shortcut else part
    where = {activation.__name__: "activation", pooling.__name__: "pooling"}
    return where.get(type(module).__module__, "other")


def _part_of_operator(name: str) -> str:
    """Say what a kind of operator does, in torch's or in ONNX's words."""
    words = {
        "convolution": ("conv",), "addition": ("add",), "normalisation": ("norm",),
        "activation": ("relu", "clamp", "clip"), "pooling": ("pool",),
        "linear": ("gemm", "matmul", "linear"),
    }  # fmt: skip
    lower = name.lower()
    for part, known in words.items():
        if any(word in lower for word in known):
            return "linear" if "addmm" in lower else part
    return "other"


def _torch(made: Configuration) -> tuple[list[Spent], list[tuple[str, float]]]:
    import torch
    from torch.profiler import ProfilerActivity, record_function
    from torch.profiler import profile as torch_profile

    runner = made.open()
    model: Any = runner.prepared.model  # type: ignore[attr-defined] # eager's own
    watched = dict(_watched(model))
    opened: list[Any] = []

    def begin(name: str) -> Any:
        def enter(*_: object) -> None:
            opened.append(record_function(_LAYER + name))
            opened[-1].__enter__()

        return enter

    def end(*_: object) -> None:
        opened.pop().__exit__(None, None, None)

    for name, module in watched.items():
        module.register_forward_pre_hook(begin(name))
        module.register_forward_hook(end)
    device = made.device.partition(":")[0]
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == "cuda")
    runner.step()
    with torch_profile(activities=activities) as found:
        for _ in range(RUNS):
            runner.step()
        if device == "cuda":
            torch.cuda.synchronize()
    averages = found.key_averages()
    whole = {e.key: e.cpu_time_total if device == "cpu" else e.device_time_total for e in averages}
    beside = _on_shortcuts(model)
    layers = [
        Spent(
            n, kind_of(m, on_shortcut=n in beside), part_of(m, on_shortcut=n in beside),
            whole.get(_LAYER + n, 0.0),
        )
        for n, m in watched.items()
    ]  # fmt: skip
    unit = _UNITS.get(device, "self_cpu_time_total")
    operators = [(e.key, getattr(e, unit)) for e in averages if not e.key.startswith(_LAYER)]
    runner.close()
    return layers, operators


def _watched(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules that are profiled: the innermost, and joins as a whole (a gate has parts).

    What computes nothing is left out: its time would be the profiler's own.
    """
    from torch import nn

    from bench.models.shortcuts import JOINS, NoShortcut

    joins = tuple(f"{n}." for n, m in model.named_modules() if isinstance(m, JOINS))
    for name, module in model.named_modules():
        inner = not any(module.children()) and not name.startswith(joins or ("\0",))
        idle = isinstance(module, nn.Identity | nn.Dropout | nn.Sequential | NoShortcut)
        if name and not idle and (inner or isinstance(module, JOINS)):
            yield name, module
