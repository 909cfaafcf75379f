"""A run whose worker was lost: recorded as failed, with the reason; the study goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bench.training.outcome import begin_record

if TYPE_CHECKING:
    from bench.launch.launchers import Assignment
    from bench.studies.request import RunRequest


def record_loss(
    work: Assignment, request: RunRequest, error: str, *, status: str = "failed"
) -> None:
    """Record that *request*'s worker ended with *error*; a checkpoint stays to go on from."""
    import torch

    resources = work.resources
    remote = resources.device.startswith("cuda") and not torch.cuda.is_available()
    record = begin_record(request, replace(resources, device="cpu") if remote else resources)
    record.environment["device"] = resources.device
    work.store.mark_unfinished(replace(record, status=status, error=error))
    work.on_event({"event": "end", "run": request.run_id, "status": status, "error": error})
