"""How a plan is carried out: on which device, with how many workers and threads."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from bench.errors import BenchError, warn
from bench.launch.processes import LocalLauncher
from bench.system.devices import (
    check_count,
    default_threads,
    physical_cores,
    resolve_device,
)
from bench.system.memory import memory_left
from bench.training.distributed import launched_by_torchrun
from bench.training.resources import Resources
from bench.training.sizes import data_size, image_macs, memory_of_images

if TYPE_CHECKING:
    from pathlib import Path

    from bench.launch.launchers import Launcher
    from bench.studies import Plan
    from bench.studies.run_request import RunRequest
    from bench.training.run import OnEvent

DEFAULT_RESULTS = "bench-runs"

# Free memory that another worker needs beside its images: torch alone takes 0.4 GiB, a CIFAR
# network's run 0.6. The images are there twice: the dataset, and the run's own part of it.
WORKER_BYTES = 2**30
IMAGE_COPIES = 2
# A GPU waits for Python where a step has few multiply-adds (forward, of a batch): about 3 ms go
# into launching its operations, and a GPU of 100 TFLOP/s trains 5e10 of them in that time. This has
# not been measured on a GPU.
SHARED_GPU_WORKERS = 4
SMALL_STEP_MACS = 2e10


@dataclass(frozen=True)
class Execution:
    """How a plan is carried out; none of it is part of a run's identity.

    Attributes:
        results: the results folder.
        device: auto, cpu, cuda, cuda:N or mps.
        threads: CPU threads of one run (default: the cores, shared among the workers; at most
            `OMP_NUM_THREADS`).
        workers: runs at a time (default: one per core on a CPU; one per GPU, or four for small
            networks).
        force: retrain runs that already exist.
        allow_mixed: add runs to a study whose runs were made with other versions or hardware.
        compiled: train through `torch.compile`.
        cuda_graph: run each training step as one CUDA graph.
        launcher: where runs execute (default: worker processes of this machine).
        on_event: called with the plan, and with every run's start, progress, epochs and end.
    """

    results: str | Path = DEFAULT_RESULTS
    device: str = "auto"
    threads: int | None = None
    workers: int | None = None
    force: bool = False
    allow_mixed: bool = False
    compiled: bool = False
    cuda_graph: bool = False
    launcher: Launcher = field(default_factory=LocalLauncher)
    on_event: OnEvent = field(default=lambda _event: None)

    @property
    def elsewhere(self) -> bool:
        """Whether runs execute on other machines than this one."""
        return not isinstance(self.launcher, LocalLauncher)

    @property
    def torch_device(self) -> torch.device:
        """The device of the runs; `cuda` of a cluster need not exist on this machine.

        Raises:
            BenchError: the name is unknown, or this machine, which is to use it, cannot.
        """
        if self.elsewhere and self.device == "cuda":
            return torch.device("cuda")
        return resolve_device(self.device)


def allot(plan: Plan, how: Execution) -> tuple[int, Resources]:
    """Decide how many runs are trained at a time, with how many threads each.

    On a CPU one single-threaded worker per core trains small networks faster than one worker
    with all cores (`tests/benchmarks/test_workers.py`), as long as memory lasts. Both numbers
    depend on the whole study, never on what is left of it, so that a resumed run has the
    threads it began with; `--deterministic` runs have one thread by default, since sums over
    threads round differently.

    Returns:
        The number of workers, and the resources of each run.

    Raises:
        BenchError: more or fewer workers or threads than make sense on this machine, or CUDA
            graphs where there can be none.
    """
    device = how.torch_device
    if how.cuda_graph:
        _check_cuda_graph(plan, device)
    deterministic = any(request.deterministic for request in plan.requests)
    if how.elsewhere:  # the cluster queues what does not fit
        for option, count in (("--workers", how.workers), ("--threads", how.threads)):
            if count is not None and count < 1:
                raise BenchError(f"{option} {count}: it must be at least 1")
        starts_here = getattr(how.launcher, "address", "") is None  # a Ray cluster of this machine
        if how.device == "auto" and device.type == "cpu" and not starts_here:
            warn(
                "the runs will train on CPUs, because this machine has no GPU: --device cuda "
                "trains on the GPUs of the others (--device cpu says that CPUs are meant)"
            )
        workers = how.workers or max(1, len(plan.requests))
        return workers, _resources(how, device, how.threads or 1)
    cores = physical_cores()
    if launched_by_torchrun():  # all of its processes train one run together
        shared = max(1, cores // int(os.environ["LOCAL_WORLD_SIZE"]))
        return 1, _resources(how, device, how.threads or shared)
    # All GPUs for "cuda", one for "cuda:1".
    places = torch.cuda.device_count() if str(device) == "cuda" else 1
    if device.type == "cpu":
        places = cores
    check_count("--workers", how.workers, places, "core" if device.type == "cpu" else "device")
    check_count("--threads", how.threads, cores, "core")
    if how.workers is None and device.type == "cuda" and all(map(_is_small, plan.requests)):
        places *= SHARED_GPU_WORKERS
    workers = how.workers or max(1, min(places, len(plan.requests), _fitting(plan)))
    share = max(1, min(cores // workers, default_threads()))
    threads = how.threads or (1 if deterministic else share)
    return workers, _resources(how, device, threads)


def _fitting(plan: Plan) -> int:
    """Return how many workers the free memory has room for."""
    datasets = {request.data: request for request in plan.requests}.values()
    images = 0
    with contextlib.suppress(BenchError):  # training says what is wrong with the images
        images = max(map(memory_of_images, datasets), default=0)
    return memory_left() // (WORKER_BYTES + IMAGE_COPIES * images)


def _check_cuda_graph(plan: Plan, device: torch.device) -> None:
    if device.type != "cuda":
        raise BenchError(f"--cuda-graph needs a CUDA device, not {device}; leave it out")
    if any(request.precision == "fp16" for request in plan.requests):
        raise BenchError(
            "--cuda-graph does not go with precision fp16, whose gradients are scaled by what "
            "each step finds; take bf16 or fp32, or leave it out"
        )
    if launched_by_torchrun():
        raise BenchError("--cuda-graph trains with one process; leave it out under torchrun")


def _is_small(request: RunRequest) -> bool:
    """Return whether a training step of a request's network leaves a GPU waiting for Python."""
    macs = image_macs(request, data_size(request))
    return macs * request.recipe.batch_size < SMALL_STEP_MACS


def _resources(how: Execution, device: torch.device, threads: int) -> Resources:
    return Resources(
        device=str(device),
        threads=threads,
        compiled=how.compiled,
        cuda_graph=how.cuda_graph,
        force=how.force,
    )
