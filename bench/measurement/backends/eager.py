"""Default PyTorch: one operator after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from bench.measurement.backends.protocol import (
    CHANNELS_LAST,
    MEMORY_FORMATS,
    Executed,
    Needs,
    Prepared,
    Support,
    UnsupportedError,
    Workload,
    prepare_copies,
)
from bench.measurement.profile.torch_profile import profile_modules

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from bench.measurement.profile.layer_time import LayerProfile

DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}

_AMPERE = {"tf32": 8, "bf16": 8}  # compute capability from which a GPU has them


class Eager:
    """`model(images)` under `torch.inference_mode`."""

    name = "eager"
    needs: Needs = "module"
    memory_formats = MEMORY_FORMATS

    def support(self) -> list[Support]:
        """Return what this torch and this processor compute natively."""
        return torch_support()

    def prepare(self, workload: Workload) -> TorchPrepared:
        """Move the network to its device, type and memory format."""
        return TorchPrepared(workload)

    def prepare_streams(self, workload: Workload, streams: int) -> list[Prepared]:
        """Prepare a copy of the network for each stream."""
        return prepare_copies(self.prepare, workload, streams)

    def profile(self, prepared: TorchPrepared, step: Callable[[], Any], runs: int) -> LayerProfile:
        """Profile the modules and operators with `torch.profiler`."""
        return profile_modules(prepared.model, step, runs, prepared.device)


class TorchPrepared:
    """A module on its device; the base of `compile`'s."""

    def __init__(self, workload: Workload) -> None:
        if workload.model is None:
            raise UnsupportedError("PyTorch runs networks, not files: name a model or a run")
        if workload.precision not in DTYPES:
            raise UnsupportedError(f"PyTorch has no {workload.precision} of these networks")
        torch.set_num_threads(workload.threads)
        self.workload = workload
        self.device = torch.device(workload.device)
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # time cuDNN's algorithms, take the fastest
        self.dtype = DTYPES[workload.precision]
        self.format = (
            torch.channels_last
            if workload.memory_format == CHANNELS_LAST
            else torch.contiguous_format
        )
        moved = workload.model.to(device=self.device, dtype=self.dtype)
        self.model: Any = moved.to(memory_format=self.format).eval()
        self.forward: Callable[[Tensor], Any] = self.model  # what runs; `compile` replaces it

    def upload(self, images: Tensor) -> Tensor:
        """Copy to the device in the network's type and memory format."""
        return images.to(
            self.device, self.dtype, memory_format=self.format, non_blocking=images.is_pinned()
        )

    def infer(self, batch: Tensor) -> Tensor:
        """Run one batch."""
        if self.device.type == "cuda":
            # Set for every batch: runners of other precisions take turns in this process.
            set_float32(self.workload.precision)
        with torch.inference_mode():
            return self.forward(batch)  # type: ignore[no-any-return]

    def download(self, output: Tensor) -> Tensor:
        """Copy the logits to the host."""
        return output.cpu()

    def synchronize(self) -> None:
        """Wait for the device."""
        synchronize(self.device)

    def describe(self) -> Executed:
        """Read back where the weights are and in which type."""
        parameter = next(self.model.parameters())
        precision = {v: k for k, v in DTYPES.items() if k != "tf32"}[parameter.dtype]
        if self.workload.precision == "tf32":
            precision = "tf32"
        return Executed(
            provider=f"torch {torch.__version__} on {parameter.device}",
            precision=precision,
            details={
                "kernels": torch.backends.cpu.get_cpu_capability()
                if parameter.device.type == "cpu"
                else f"cudnn {torch.backends.cudnn.version()}",  # type: ignore[no-untyped-call]
                "threads": torch.get_num_threads(),
            },
        )


def synchronize(device: torch.device) -> None:
    """Wait until all work on a device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def set_float32(precision: str) -> None:
    """Let fp32 tensors be computed in TF32 on a GPU if *precision* is tf32, else in IEEE fp32.

    PyTorch has two interfaces for this, and a program that has used one of them cannot read the
    other. With both set, in this order, either can be read.
    """
    cudnn: Any = torch.backends.cudnn  # mypy does not find its parts
    matmul = torch.backends.cuda.matmul
    parts = (cudnn.conv, cudnn.rnn, matmul)
    wanted = "tf32" if precision == "tf32" else "ieee"
    if any(part.fp32_precision != wanted for part in parts):
        cudnn.allow_tf32 = matmul.allow_tf32 = precision == "tf32"
        for part in parts:
            part.fp32_precision = wanted


def torch_support() -> list[Support]:
    """Return the pairs, with the reason for those without native kernels on this machine."""
    mps = None if torch.backends.mps.is_available() else "this torch finds no Apple GPU"
    built = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # not on macOS
    native = {
        "bf16": built and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()),
        "fp16": built and bool(torch.ops.mkldnn._is_mkldnn_fp16_supported()),
    }
    slow = "this processor has no {} kernels in oneDNN (AVX-512 or AMX)"
    return [
        Support("cpu", "fp32"),
        *(Support("cpu", p, None if native[p] else slow.format(p)) for p in native),
        *(Support("cuda", p, without_cuda(p)) for p in DTYPES),
        Support("mps", "fp32", mps),
        Support("mps", "fp16", mps),
    ]


def without_cuda(precision: str) -> str | None:
    """Return why no CUDA device here computes in a precision; None if one does."""
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    if precision in _AMPERE and torch.cuda.get_device_capability()[0] < _AMPERE[precision]:
        return f"this GPU has no {precision}: compute capability 8.0 and later have"
    return None
