"""The runs a launcher is given, and the record of a run whose worker process was lost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from bench.training.outcome import begin_record

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.store import Store
    from bench.studies.run_request import RunRequest
    from bench.system.signals import Stop
    from bench.training.resources import Resources
    from bench.training.run import OnEvent

LOOK_AGAIN_SECONDS = 0.3  # between two looks at runs that other processes are doing


@dataclass(frozen=True)
class Assignment:
    """Runs to do, and what any launcher needs for them.

    A launcher's `run` does them. Each run's outcome, a failure included, is in the store then. It
    raises a `BenchError` if the launcher cannot be used, a `StopRequestedError` if a signal asked
    to stop (every started run has a checkpoint), and a `StorageError` if nothing can be written.

    Attributes:
        requests: the runs.
        store: where each run's outcome is recorded, a failure included.
        resources: device and threads of each run.
        workers: runs at a time.
        stop: says whether a signal asked to stop.
        on_event: called with the time that the planned runs take, and with every run's start,
            progress, epochs and end.
        weights: file of weights that every run starts from.
        planned: all runs of the plan that are still to do, before the first of them begins, for a
            launcher that reports how long they take; then none.
    """

    requests: Sequence[RunRequest]
    store: Store
    resources: Resources
    workers: int
    stop: Stop
    on_event: OnEvent
    weights: Path | None = None
    planned: Sequence[RunRequest] = ()


def record_lost_worker(
    work: Assignment, request: RunRequest, error: str, *, status: str = "failed"
) -> None:
    """Record that the worker doing *request* ended with *error*; its checkpoint is kept."""
    resources = work.resources
    remote = resources.device.startswith("cuda") and not torch.cuda.is_available()
    record = begin_record(request, replace(resources, device="cpu") if remote else resources)
    record.environment["device"] = resources.device
    work.store.mark_unfinished(replace(record, status=status, error=error))
    work.on_event({"event": "end", "run": request.run_id, "status": status, "error": error})
