"""The record of a run that has started, and of one that failed."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import torch

from bench.errors import plain
from bench.models.errors import one_line
from bench.store import RunRecord
from bench.system.environment import describe_environment
from bench.system.memory import is_out_of_memory, memory_left
from bench.training.inputs import describe_inputs

if TYPE_CHECKING:
    from bench.studies.run_request import RunRequest
    from bench.training.resources import Resources


def begin_record(request: RunRequest, resources: Resources) -> RunRecord:
    """Return the record of a run that has just started."""
    return RunRecord(
        run=request.run_id,
        request=request.as_dict(),
        status="interrupted",
        error="not finished; the same command resumes it",
        environment={
            **describe_environment(resources.device, threads=resources.threads),
            **({"workers": resources.workers} if resources.workers else {}),
            **describe_inputs(request),
        },
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=0.0,
        parent=request.grown_from,
    )


def failure(record: RunRecord, error: BaseException, *, seconds: float) -> RunRecord:
    """Return the record of a run that *error* ended."""
    status = "out_of_memory" if is_out_of_memory(error) else "failed"
    reason = plain(one_line(error))[:400]
    if status == "out_of_memory":
        reason += f" ({_memory(error, record.environment['device'])})"
    return dataclasses.replace(record, status=status, error=reason, seconds=seconds)


def _memory(error: BaseException, device: str) -> str:
    """Return how much memory was left where an allocation failed."""
    if isinstance(error, torch.OutOfMemoryError) and torch.device(device).type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return f"{device} has {total >> 20} MiB; {free >> 20} MiB were free afterwards"
    return f"{memory_left() >> 20} MiB of memory were left"
