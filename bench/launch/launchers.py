"""Where runs execute: the names that `--launcher` takes, and what each of them needs."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from bench.errors import BenchError, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.store import Store
    from bench.studies.request import RunRequest
    from bench.system.signals import Stop
    from bench.training.resources import Resources
    from bench.training.run import OnEvent

LAUNCHERS = ("local", "ray", "slurm")
# Longer than any step, compilation or reading of data that makes sense.
TIMEOUT_SECONDS = 3600.0
LOOK_AGAIN_SECONDS = 0.3  # at runs that other processes do


@dataclass(frozen=True)
class Assignment:
    """Runs to be done, and what any launcher needs for them.

    Attributes:
        requests: the runs.
        store: where each run's outcome stands afterwards, a failure included.
        resources: what each run gets.
        workers: runs at a time.
        stop: asked whether to stop.
        on_event: told of every run's start, progress, epochs and end.
        weights: file of weights that every run starts from.
    """

    requests: Sequence[RunRequest]
    store: Store
    resources: Resources
    workers: int
    stop: Stop
    on_event: OnEvent
    weights: Path | None = None


@dataclass(frozen=True)
class RayLauncher:
    """Every run a Ray task with its need of CPUs and GPUs, taken up elsewhere if a node is lost.

    Attributes:
        address: `HOST:PORT`, `ray://HOST:PORT` or `auto` of a cluster; None starts one here.
        shared: every node reaches the results folder by the same path. If not, results come
            back as bytes and this process stores them; a lost run then begins anew, as its
            checkpoint lay on the lost node.
        retries: times that a run is begun again after the loss of its node or process.
    """

    address: str | None = None
    shared: bool = True
    retries: int = 3

    def run(self, work: Assignment) -> None:
        """Do the runs; see `bench.launch.launch`."""
        from bench.launch.raytasks import run_on_ray

        run_on_ray(self, work)


@dataclass(frozen=True)
class SlurmLauncher:
    """The runs as one Slurm job array, submitted through submitit, requeued when time is up.

    Attributes:
        folder: where submitit keeps scripts and logs; compute nodes must reach it.
        minutes: time limit of one job.
        requeues: times that a run whose time was up is queued again.
        parameters: further options of `sbatch`, such as ``{"partition": "gpu"}``.
        cluster: `slurm`, or `local` for submitit's executor of processes on this machine.
    """

    folder: str = "bench-slurm"
    minutes: int = 60
    requeues: int = 20
    parameters: dict[str, Any] = field(default_factory=dict)
    cluster: Literal["slurm", "local"] = "slurm"

    def run(self, work: Assignment) -> None:
        """Do the runs; see `bench.launch.launch`."""
        from bench.launch.slurm import run_on_slurm

        run_on_slurm(self, work)

    def script(self, runs: int, resources: Resources, workers: int) -> str:
        """The batch script that would be submitted for so many runs."""
        from bench.launch.slurm import script

        return script(self, runs, resources, workers)


@dataclass(frozen=True)
class LocalLauncher:
    """In worker processes of this machine, or one run after the other in this process.

    Attributes:
        isolate: a single worker is a process of its own, too, so that a crash of what it
            trains costs that run alone. The command line's way; it takes a program whose main
            module can be imported, as `multiprocessing` says.
        timeout: seconds that a worker process may go without a sign of progress (a training
            step, a batch of an evaluation) before it is ended.
    """

    isolate: bool = False
    timeout: float = TIMEOUT_SECONDS

    def run(self, work: Assignment) -> None:
        """Do the runs; see `bench.launch.launch`."""
        from bench.training.distributed import launched_by_torchrun

        together = launched_by_torchrun()  # this process is a part of one run's
        several = work.workers > 1 and len(work.requests) > 1
        if (several or self.isolate) and not together:
            from bench.launch.processes import run_in_processes

            run_in_processes(work, self.timeout)
        else:
            run_here(work, wait=together)


def run_here(work: Assignment, *, wait: bool) -> None:
    """Do the runs in this process, those that other processes do at the moment last.

    Args:
        work: the runs.
        wait: for each in its turn instead.
    """
    from bench.training.run import RunHeldError, execute

    left = deque(work.requests)
    held = 0  # of the last tries
    while left:
        work.stop.check()
        request = left.popleft()
        try:
            execute(
                request, work.store, work.resources,
                stop=work.stop, on_event=work.on_event, weights=work.weights, wait=wait,
            )  # fmt: skip
        except RunHeldError:
            left.append(request)
            held += 1
            if held == len(left):
                work.on_event({"event": "held", "runs": len(left)})
            if held >= len(left):
                time.sleep(LOOK_AGAIN_SECONDS)
        else:
            held = 0


LOCAL = LocalLauncher()

Launcher = LocalLauncher | RayLauncher | SlurmLauncher


def make_launcher(
    name: str,
    *,
    ray_address: str | None = None,
    shared: bool = True,
    slurm_minutes: int | None = None,
    slurm: dict[str, Any] | None = None,
    timeout: float | None = None,
) -> Launcher:
    """Return the launcher called *name*, as the command line uses it.

    Raises:
        BenchError: the name is unknown, or an option belongs to another launcher.
    """
    if name not in LAUNCHERS:
        raise BenchError(
            f"unknown launcher '{name}'{nearest(name, LAUNCHERS)} (known: {', '.join(LAUNCHERS)})"
        )
    if name != "ray" and (ray_address is not None or not shared):
        option = "--return-bytes" if ray_address is None else f"--ray-address {ray_address}"
        raise BenchError(f"{option}: it belongs to --launcher ray, but --launcher is {name}")
    if name != "slurm" and (slurm_minutes is not None or slurm):
        raise BenchError(f"--slurm-…: it belongs to --launcher slurm, but --launcher is {name}")
    if name != "local" and timeout is not None:
        raise BenchError(
            f"--timeout {timeout:g}: it belongs to --launcher local, but --launcher is {name}"
        )
    if name == "ray":
        return RayLauncher(address=ray_address, shared=shared)
    if name == "slurm":
        if slurm_minutes is not None and slurm_minutes < 1:
            raise BenchError(f"--slurm-minutes {slurm_minutes}: it must be at least 1")
        return SlurmLauncher(minutes=slurm_minutes or 60, parameters=slurm or {})
    return LocalLauncher(isolate=True, timeout=_timeout(timeout))


def _timeout(seconds: float | None) -> float:
    if seconds is None:
        return TIMEOUT_SECONDS
    if not seconds > 0:  # not a number neither
        raise BenchError(f"--timeout {seconds:g}: seconds without progress, more than 0")
    return seconds
