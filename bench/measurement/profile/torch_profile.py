"""PyTorch's profile: time of each module of a network, and of each kind of operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.nn.modules import activation, batchnorm, pooling
from torch.profiler import ProfilerActivity, record_function
from torch.profiler import profile as torch_profile

from bench.measurement.profile.layer_time import LayerProfile, LayerTime
from bench.models import Residual
from bench.models.shortcuts import JOINS, NoShortcut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


_LAYER = "bench.layer:"
_OWN_TIME = {"cpu": "self_cpu_time_total", "cuda": "self_device_time_total"}


def profile_modules(
    model: nn.Module, step: Callable[[], Any], runs: int, device: torch.device
) -> LayerProfile:
    """Run *step* under `torch.profiler`, each module of the network inside a named range.

    The ranges stay on the modules. One more batch runs before the profiled ones.
    """
    modules = dict(_profiled_modules(model))
    for name, module in modules.items():
        module.forward = record_function(_LAYER + name)(module.forward)
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    step()
    with torch_profile(activities=activities) as found:
        for _ in range(runs):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    # Ranges and kernels come a second time as events of the device; their time is also their
    # operator's on the host.
    averages = [e for e in found.key_averages() if e.device_type == DeviceType.CPU]
    total = {
        event.key: event.cpu_time_total if device.type == "cpu" else event.device_time_total
        for event in averages
    }
    on_shortcuts = _on_shortcuts(model)
    layers = [
        LayerTime(
            name=name,
            kind=kind_of(module, on_shortcut=name in on_shortcuts),
            part=part_of(module, on_shortcut=name in on_shortcuts),
            microseconds=total.get(_LAYER + name, 0.0),
        )
        for name, module in modules.items()
    ]
    own_time = _OWN_TIME.get(device.type, "self_cpu_time_total")
    operators = [
        (event.key, getattr(event, own_time))
        for event in averages
        if not event.key.startswith(_LAYER)
    ]
    return layers, operators


def kind_of(module: nn.Module, *, on_shortcut: bool = False) -> str:
    """Return a layer's kind, such as `Conv2d 1×1 on the shortcut`."""
    kind = type(module).__name__
    if isinstance(module, nn.Conv2d):
        kind += " " + "×".join(map(str, module.kernel_size))
    return kind + " on the shortcut" * on_shortcut


def _on_shortcuts(model: nn.Module) -> set[str]:
    """Return paths on shortcuts, as torchvision, timm, the book and these networks call them."""
    named = dict(model.named_modules())
    books = {f"{name}.conv3" for name, module in named.items() if isinstance(module, Residual)}
    return books | {n for n in named if {"downsample", "shortcut"} & set(n.split("."))}


def part_of(module: nn.Module, *, on_shortcut: bool = False) -> str:
    """Return the part of `layer_time.PARTS` that a layer computes."""
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


def _profiled_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules to profile: the innermost, and joins as a whole (a gate has parts).

    Modules that compute nothing are left out: their time would be the profiler's own.
    """
    joins = tuple(f"{n}." for n, m in model.named_modules() if isinstance(m, JOINS))
    for name, module in model.named_modules():
        inner = not any(module.children()) and not name.startswith(joins or ("\0",))
        idle = isinstance(module, nn.Identity | nn.Dropout | nn.Sequential | NoShortcut)
        if name and not idle and (inner or isinstance(module, JOINS)):
            yield name, module
