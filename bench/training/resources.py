"""Where and how a run executes, and the settings of PyTorch that follow."""

from __future__ import annotations

import contextlib
import os
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from bench.system.caller_state import caller_state
from bench.system.memory import keep_freed_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.studies.run_request import Data, RunRequest


@dataclass(frozen=True)
class Resources:
    """Where and how runs execute; recorded with each run, not part of its identity.

    Attributes:
        device: as `bench.system.devices.resolve_device` takes it.
        threads: CPU threads of one run.
        workers: runs that this machine trains at a time, which share its memory and its GPU; None
            if it is not known, as on a cluster.
        compiled: train through `torch.compile`.
        cuda_graph: run each training step as one CUDA graph.
        force: retrain runs that already exist.
        fingerprints: what the images of the user's own datasets must be, so that all runs of a
            study are trained on the same.
        code: what the digests of the user's own networks must be, by name, likewise.
        command: identifies the command, whose own checkpoint a forced run resumes when a scheduler
            starts it again.
    """

    device: str = "cpu"
    threads: int = 1
    workers: int | None = None
    compiled: bool = False
    cuda_graph: bool = False
    force: bool = False
    fingerprints: dict[Data, str] = field(default_factory=dict)
    code: dict[str, dict[str, str]] = field(default_factory=dict)
    command: str = field(default_factory=lambda: uuid.uuid4().hex, compare=False)


@contextlib.contextmanager
def torch_settings(request: RunRequest, resources: Resources) -> Iterator[None]:
    """Set threads, determinism, cuDNN's search and float32 arithmetic for one run; restore them."""
    with caller_state(), _compilations(request, resources):
        torch.set_num_threads(resources.threads)
        keep_freed_memory()
        if request.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required by cuBLAS
        torch.use_deterministic_algorithms(request.deterministic)
        cudnn: Any = torch.backends.cudnn  # mypy does not find its part `conv`
        cudnn.benchmark = not request.deterministic  # time cuDNN's algorithms, take the fastest
        cudnn.conv.fp32_precision = "ieee" if request.precision == "fp32" else "tf32"
        if request.precision == "fp32":  # means fp32
            torch.backends.cuda.matmul.fp32_precision = "ieee"
        yield


def _compilations(
    request: RunRequest, resources: Resources
) -> contextlib.AbstractContextManager[None]:
    """Let PyTorch compile the step for every size of growing images; it stops at eight."""
    if not resources.compiled or request.recipe.initial_size == 1:
        return contextlib.nullcontext()
    import torch._dynamo.config as found

    dynamo: Any = found
    most = 2 * request.recipe.epochs  # of a batch and of the last one, of each epoch
    limits = ("recompile_limit", "accumulated_recompile_limit")
    patched: contextlib.AbstractContextManager[None] = dynamo.patch(
        {name: max(getattr(dynamo, name), most) for name in limits}
    )
    return patched
