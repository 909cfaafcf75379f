"""A run whose worker was lost: recorded as failed, with the reason; the study goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bench.training.run import OnEvent, Resources, begin_record

if TYPE_CHECKING:
    from bench.request import RunRequest
    from bench.store import Store


def record_loss(
    request: RunRequest, store: Store, resources: Resources, error: str, on_event: OnEvent
) -> None:
    """Record that *request*'s worker ended with *error*; a checkpoint stays to go on from."""
    import torch

    remote = resources.device.startswith("cuda") and not torch.cuda.is_available()
    record = begin_record(request, replace(resources, device="cpu") if remote else resources)
    record.environment["device"] = resources.device
    store.mark_unfinished(replace(record, status="failed", error=error))
    on_event({"event": "end", "run": request.run_id, "status": "failed", "error": error})
