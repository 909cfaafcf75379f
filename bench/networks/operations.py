"""The operations of a training step, each of which Python has to launch, and their arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bench.networks.summary import black_images, on_shapes

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

_IMAGES = 2  # batch norm needs more than one value per channel


@dataclass(frozen=True)
class Operations:
    """Operations of a forward and a backward pass, without views and empty tensors.

    Attributes:
        fp32: their number in fp32.
        casts: those that autocast adds: each layer that multiplies and adds has its weights cast,
            and their gradient cast back.
        macs: multiply-adds of one image. A layer that takes the images has no gradient for them.
    """

    fp32: int
    casts: int
    macs: int

    def count(self, precision: str) -> int:
        """Return the number in a precision: fp32, bf16 or fp16."""
        return self.fp32 if precision == "fp32" else self.fp32 + self.casts


def count_operations(model: nn.Module, shape: tuple[int, ...]) -> Operations:
    """Count by a forward and a backward pass, on shapes alone where the network allows it.

    The update of the weights and the preparation of images are not counted: they are few for all
    weights together. The model is left as it was, but for its gradients.

    Args:
        model: on any device, in any mode.
        shape: channels, height, width.
    """
    return on_shapes(
        model, lambda network: _watched(network if network is model else network.train(), shape)
    )


def _watched(model: nn.Module, shape: tuple[int, ...]) -> Operations:
    images = black_images(model, (_IMAGES, *shape))
    with torch.enable_grad(), _Counter() as counter:
        logits = model(images)
        labels = torch.zeros(_IMAGES, dtype=torch.int64, device=images.device)
        F.cross_entropy(logits, labels).backward()  # type: ignore[no-untyped-call]
    return Operations(counter.operations, 2 * counter.layers, counter.flops // (2 * _IMAGES))


def _of_backward(flops: Callable[..., int], args: tuple[Any, ...], output: Any) -> int:
    """Count a convolution's backward pass; torch counts its weights' gradient without groups."""
    *before, groups, (of_input, of_weight, _) = args
    images = flops(*before, groups, [of_input, False, False], out_val=output)
    weights = flops(*before, groups, [False, of_weight, False], out_val=output)
    return int(images + weights // groups)


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operators, their FLOPs, and those of the forward pass that have any."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = self.layers = self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        del types
        output = func(*args, **(kwargs or {}))
        name = func._overloadpacket.__name__
        if func._overloadpacket in flop_registry:
            flops = flop_registry[func._overloadpacket]
            if name == "convolution_backward":
                self.flops += _of_backward(flops, args, output)
            else:
                self.flops += flops(*args, **(kwargs or {}), out_val=output)
        if not func.is_view and not name.startswith("empty"):
            self.operations += 1
            # A backward pass has products of its own, which need no further casts.
            self.layers += func._overloadpacket in flop_registry and name not in {
                "convolution_backward",
                "mm",
            }
        return output
